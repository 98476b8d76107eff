"""Where the time of a run goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Seconds spent on each activity, continued when a run is resumed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(("start", "compile", "train", "evaluate", "checkpoint"), 0.0)

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
        """Seconds altogether."""
        return sum(self.seconds.values())
