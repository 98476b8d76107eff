"""The wall-clock time of a run, by its parts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

ACTIVITIES = ("start", "compile", "train", "evaluate", "checkpoint", "video")


class Clock:
    """The seconds spent on each activity, continued when a run is resumed."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(ACTIVITIES, 0.0) | dict(seconds or {})

    @contextlib.contextmanager
    def __call__(self, activity: str) -> Iterator[None]:
        """Counts the time of a block."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[activity] += time.monotonic() - begin

    @property
    def total(self) -> float:
        """The seconds of all phases together."""
        return sum(self.seconds.values())
