"""Arithmetic of ranges."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmsavedstate.files.ranges import Coverage


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=20))
def test_coverage_against_a_set(spans: list[tuple[int, int]]) -> None:
    covered, expected = Coverage(), set[int]()
    for start, size in spans:
        free = covered.add(start, start + size)
        assert [number for low, high in free for number in range(low, high)] == sorted(
            set(range(start, start + size)) - expected
        )
        expected |= set(range(start, start + size))
    assert [number for low, high in covered.spans() for number in range(low, high)] == sorted(expected)
    assert all(before[1] < after[0] for before, after in zip(covered.spans(), covered.spans()[1:], strict=False))
