"""Keeps a device busy: batches are cut and sent by other threads while the learner works on earlier ones."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import jax

T = TypeVar("T")


class Feed(Generic[T]):
    """Batches number `first`, `first + 1`, ... without end, in this order whatever the number of threads.

    Which batch is which depends on its number alone, so a feed that starts at `position` of an earlier one goes on
    as if nothing had happened: that number is all the state there is. Use it as a context, or call `close`.

        windows = Windows(open_store("store"), WindowConfig())
        sampler = Shuffled(len(windows), seed=0)
        with Feed(lambda batch: windows.take(sampler(batch, 256)), put=jax.device_put) as feed:
            for batch in feed: ...

    Args:
      make: makes the batch of a number; it runs in several threads, and what it raises reaches the caller in the place
        of its batch.
      put: sends a batch on its way, such as `jax.device_put`, in the same thread.
      first: number of the first batch.
      threads: that make batches. Reading and copying leave Python's lock to others, so more than one is of use.
      ahead: batches that are made before they are asked for.

    Raises:
      ValueError: a number is too small.
    """

    def __init__(
        self,
        make: Callable[[int], T],
        *,
        put: Callable[[T], Any] = jax.device_put,
        first: int = 0,
        threads: int = 2,
        ahead: int = 4,
    ):
        for name, value, least in (("first", first, 0), ("threads", threads, 1), ("ahead", ahead, 1)):
            if value < least:
                raise ValueError(f"{name} is {value}, it must be at least {least}")
        self.position = first
        """Number of the batch that comes next; save it to go on from here."""
        self._make, self._put, self._ahead = make, put, ahead
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="feed")
        self._waiting: collections.deque[Future[T]] = collections.deque()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._executor is None:
            raise RuntimeError("this feed was closed: make another one")
        while len(self._waiting) < self._ahead:
            self._waiting.append(self._executor.submit(self._batch, self.position + len(self._waiting)))
        try:
            batch = self._waiting.popleft().result()
        except BaseException:
            self.close()
            raise
        self.position += 1
        self._waiting.append(self._executor.submit(self._batch, self.position + len(self._waiting)))
        return batch

    def close(self) -> None:
        """Waits for the batches that are being made, and drops them. May be called twice."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None  # type: ignore[assignment]
            self._waiting.clear()

    def __enter__(self) -> Feed[T]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _batch(self, number: int) -> T:
        return self._put(self._make(number))
