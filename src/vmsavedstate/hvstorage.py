"""The public names of the container of ``.vmrs`` and ``.vmcx`` files; the code is in :mod:`.containers.hvstorage`."""

from .containers.hvstorage.apply_log import apply_replay_log
from .containers.hvstorage.store import Store

__all__ = ["Store", "apply_replay_log"]
