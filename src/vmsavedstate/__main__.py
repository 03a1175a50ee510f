"""``python -m vmsavedstate`` is the command ``vmrs``."""

from .cli import main

main()
