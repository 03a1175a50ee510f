"""Work in order on threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsavedstate import InvalidArgumentError
from vmsavedstate.memory.parallel import AHEAD, in_order, worker_count


@given(count=st.integers(0, 60), workers=st.integers(1, 9))
def test_results_come_in_the_order_of_the_tasks(count: int, workers: int) -> None:
    def work(task: int) -> int:
        time.sleep(0.0002 * (task % 3))
        return task * task

    assert list(in_order(iter(range(count)), work, workers)) == [task * task for task in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_no_more_is_taken_ahead_than_allowed(workers: int) -> None:
    taken = 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for task in range(1000):
            taken += 1
            yield task

    for done, _ in enumerate(in_order(tasks(), lambda task: task, workers), 1):
        assert taken - done <= AHEAD * workers
        if done == 100:
            break


@pytest.mark.parametrize("workers", [1, 4])
def test_an_error_comes_where_its_task_stands(workers: int) -> None:
    def work(task: int) -> int:
        if task == 5:
            raise KeyError(task)
        return task

    results = in_order(iter(range(100)), work, workers)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        next(results)


def test_leaving_early_ends_all_threads() -> None:
    before = set(threading.enumerate())
    results = in_order(iter(range(10_000)), lambda task: time.sleep(0.001), 8)
    next(results)
    assert len(set(threading.enumerate()) - before) == 8
    results.close()  # type: ignore[attr-defined]  # a generator
    assert set(threading.enumerate()) <= before


def test_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=20)
    assert list(in_order(iter(range(4)), lambda task: together.wait() >= 0, 4)) == [True] * 4


@pytest.mark.parametrize("workers", [0, -1, True, 1.0, "2"])
def test_numbers_of_workers_that_cannot_be(workers: object) -> None:
    with pytest.raises(InvalidArgumentError, match="workers"):
        worker_count(workers)  # type: ignore[arg-type]


def test_all_cores_unless_told() -> None:
    assert worker_count(None) >= 1
    assert worker_count(3) == 3


def test_absurd_numbers_of_workers_are_bounded() -> None:
    assert worker_count(1 << 60) == 256
    assert list(in_order(iter(range(4)), lambda task: task, worker_count(1 << 60))) == [0, 1, 2, 3]


def test_a_short_stream_starts_no_more_threads_than_it_has_tasks() -> None:
    before = set(threading.enumerate())
    results = in_order(iter(range(3)), lambda task: task, 64)
    assert next(results) == 0
    assert len(set(threading.enumerate()) - before) <= 3
    assert list(results) == [1, 2]
    assert set(threading.enumerate()) <= before
