"""Files: the one place that opens evidence, and the one that makes new files. Knows nothing of what they hold.

``source`` reads evidence by position, ``opening`` opens it read-only, ``locks`` holds advisory locks, ``new_file`` writes
files that get their name when they are complete, ``overlay`` lays bytes over bytes, ``ranges`` does arithmetic of ranges.
"""
