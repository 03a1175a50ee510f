"""What the tests share: builders of files written byte by byte from the specification, and where the samples lie."""
