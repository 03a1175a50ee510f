"""The version of the distribution, in the one place that setuptools and ``vmrs --version`` both read."""

VERSION = "0.1.0"
