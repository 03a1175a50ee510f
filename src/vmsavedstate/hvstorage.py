"""The public names of the container of ``.vmrs`` and ``.vmcx`` files; the code is in :mod:`.containers.hvstorage`."""

from .containers.hvstorage import Store, apply_replay_log

__all__ = ["Store", "apply_replay_log"]
