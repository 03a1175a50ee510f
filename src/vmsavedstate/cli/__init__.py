"""The command ``vmrs``: one file per command, thin over the public API.

From here only public names of the package may be touched, so that whatever a command can do, a script can do. ``app``
finds the commands, ``arguments`` and ``output`` are what they share; numpy and rich are imported where they are used.
"""

from .app import main

__all__ = ["main"]
