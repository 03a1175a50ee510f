"""Ratios against peers and limits, in one run each."""
