"""The formats of saved machines: each package reads one and hands over a :class:`~vmsavedstate.snapshot.Snapshot`.

``detect`` is the table of them: a new format is a package here and a row there. ``refusals`` is the table of files that are
something else. Formats know no paging and no command line; a writer of the same format lives in
:mod:`vmsavedstate.export` and shares only the format's ``layout``.
"""
