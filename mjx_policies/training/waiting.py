"""Signs of life from work that logs no steps: a spinner or a bar in a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mjx_policies.training.progress import duration, spinner

LINE_SECONDS = 10.0  # between lines where there is no terminal


@contextlib.contextmanager
def working(console: Console, what: str, line_seconds: float | None = None) -> Iterator[Callable[[str], None]]:
    """Says what is being done and, while the block lasts, that it still is; gives a function that changes the words."""
    if console.is_terminal:
        with console.status(what, spinner=spinner(console)) as status:
            yield status.update
        return
    console.print(f"{what} ...", highlight=False)
    started, ended = time.monotonic(), threading.Event()

    def update(words: str) -> None:
        nonlocal what
        what = words

    def repeat() -> None:
        while not ended.wait(line_seconds or LINE_SECONDS):
            console.print(f"{what} ... {duration(time.monotonic() - started)}", highlight=False)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield update
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def counting(
    console: Console, what: str, total: int, line_seconds: float | None = None
) -> Iterator[Callable[[int, str], None]]:
    """Gives a function of the number that is done and of a few words about it; call it at least every second.

    Example:
      >>> with counting(open_console(), "robots", 400) as progress:
      ...     progress(100, "3 failed")
      robots: 100 of 400, 3 failed
    """
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done, words: bar.update(
                task, completed=done, description=f"{what}: {words}" if words else what
            )
        return
    started, last = time.monotonic(), -float("inf")

    def show(done: int, words: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < (line_seconds or LINE_SECONDS) and done < total:
            return
        last = now
        guess = (total - done) * (now - started) / done if done else 0.0
        left = f"{duration(guess)} left" if guess >= 1 else ""
        parts = (f"{what}: {done:,} of {total:,}", words, left)
        console.print(", ".join(part for part in parts if part), highlight=False)

    yield show
