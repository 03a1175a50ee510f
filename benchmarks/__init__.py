"""Speed and memory, as ratios against a peer or a limit in the same run. ``python -m benchmarks [NAME ...]``.

Times of a shared machine mean little; ratios within one run mean more. Every benchmark measures both sides in turns and
takes the best of each.
"""
