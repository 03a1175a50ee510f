"""Work in order on several threads, some steps ahead; nothing keeps running when the consumer stops."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ..errors import InvalidArgumentError
from ..integers import as_int

Task = TypeVar("Task")
Result = TypeVar("Result")

MOST_WORKERS = 256  # threads and their memory are bounded, whatever number is asked for
AHEAD = 2  # tasks for each worker that are begun or done and not yet consumed


def worker_count(workers: int | None) -> int:
    """How many threads to use: ``workers``, or one for each core; 256 at most. Raises InvalidArgumentError below 1."""
    if workers is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return min(len(affinity(0)) if affinity is not None else os.cpu_count() or 1, MOST_WORKERS)
    count = as_int(workers, "workers")
    if count < 1:
        raise InvalidArgumentError(f"workers is 1 or more, not {count}")
    return min(count, MOST_WORKERS)


class _Slot(Generic[Task, Result]):
    """A task and, when it is done, its result or error."""

    __slots__ = ("done", "error", "result", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.done = False
        self.result: Result | None = None
        self.error: BaseException | None = None


def in_order(tasks: Iterator[Task], work: Callable[[Task], Result], workers: int) -> Iterator[Result]:
    """``work(task)`` for each task, in the order of the tasks, on ``workers`` threads.

    ``tasks`` is consumed on the caller's thread. With one worker, or a single task, no thread is started.
    """
    first = next(tasks, None)
    second = next(tasks, None) if first is not None and workers > 1 else None
    if first is None:
        return
    if second is None:
        yield work(first)
        for task in tasks:
            yield work(task)
        return
    yield from _Pool(work, workers).run(first, second, tasks)


class _Pool(Generic[Task, Result]):
    """Threads that take the tasks in turn, the first thread the first task and so on.

    So each makes its share of what is done and not yet consumed, and no more: if a free thread took the next task, any of
    them could make all of it at some time, and the C library keeps as much freed memory for each thread.
    """

    def __init__(self, work: Callable[[Task], Result], workers: int) -> None:
        self._work = work
        self._workers = workers
        lock = threading.Lock()
        self._done = threading.Condition(lock)
        self._added = [threading.Condition(lock) for _ in range(workers)]
        self._waiting: list[deque[_Slot[Task, Result]]] = [deque() for _ in range(workers)]  # not begun
        self._threads: list[threading.Thread] = []
        self._number = 0  # of the next task
        self._ended = False

    def run(self, first: Task, second: Task, tasks: Iterator[Task]) -> Iterator[Result]:
        ordered: deque[_Slot[Task, Result]] = deque()
        try:
            for task in (first, second):
                self._add(ordered, task)
            exhausted = False
            while ordered or not exhausted:
                while not exhausted and len(ordered) < AHEAD * self._workers:
                    following = next(tasks, None)
                    if following is None:
                        exhausted = True
                    else:
                        self._add(ordered, following)
                if ordered:
                    yield self._taken(ordered.popleft())
        finally:
            with self._done:
                self._ended = True
                for added in self._added:
                    added.notify()
            for thread in self._threads:
                thread.join()

    def _add(self, ordered: deque[_Slot[Task, Result]], task: Task) -> None:
        slot: _Slot[Task, Result] = _Slot(task)
        ordered.append(slot)
        turn = self._number % self._workers
        self._number += 1
        with self._done:
            self._waiting[turn].append(slot)
            self._added[turn].notify()
        if turn == len(self._threads):  # its first task: a short stream needs no more threads than it has tasks
            thread = threading.Thread(target=self._serve, args=(turn,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _taken(self, slot: _Slot[Task, Result]) -> Result:
        with self._done:
            while not slot.done:
                self._done.wait()
        if slot.error is not None:
            raise slot.error
        return slot.result  # type: ignore[return-value]  # it is there where there is no error

    def _serve(self, turn: int) -> None:
        waiting, added = self._waiting[turn], self._added[turn]
        while True:
            with self._done:
                while not waiting and not self._ended:
                    added.wait()
                if self._ended:
                    return
                slot = waiting.popleft()
            try:
                slot.result = self._work(slot.task)
            except BaseException as error:
                slot.error = error
            with self._done:
                slot.done = True
                self._done.notify()
            del slot  # the consumer lets go of the result when it is through with it
