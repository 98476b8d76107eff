"""Signs of life from work that logs no steps: a spinner or a bar in a terminal, a line within ten seconds elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from mjx_policies.training.progress import duration, fitting, spinner

LINE_SECONDS = 9.0  # between lines where there is no terminal: never ten seconds of silence


@contextlib.contextmanager
def working(console: Console, what: str, line_seconds: float | None = None) -> Iterator[Callable[[str], None]]:
    """Says what is being done and, while the block lasts, that it still is; gives a function that changes the words."""
    if console.is_terminal:
        with console.status(what, spinner=spinner(console)) as status:
            yield status.update
        return
    console.print(f"{what} ...", highlight=False)
    started = last = time.monotonic()

    def update(words: str) -> None:
        nonlocal what
        what = words

    def repeat() -> None:
        nonlocal last
        last = time.monotonic()
        console.print(f"{what} ... {duration(last - started)}", highlight=False)

    with _repeating(line_seconds or LINE_SECONDS, repeat, lambda: last):
        yield update


@contextlib.contextmanager
def counting(
    console: Console, what: str, total: int, line_seconds: float | None = None, first: int = 0
) -> Iterator[Callable[..., None]]:
    """Gives a function of the number that is done and of a few words about it, one or several.

    Where there is no terminal the last line is repeated while nothing new comes. In one, words that do not fit are left
    out, the last first.

    Args:
      console: where to write.
      what: is counted.
      total: where the work ends.
      line_seconds: between lines where there is no terminal.
      first: of them were done before.

    Example:
      >>> with counting(open_console(), "episodes", 400) as progress:
      ...     progress(100, "3 failed")
      episodes: 100 of 400, 3 failed
    """
    if console.is_terminal:
        width = 24 if console.width >= 100 else 12
        columns = (
            SpinnerColumn(spinner(console)),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=width),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        room = console.width - len(f"* {what}: ") - width - len(f" {total}/{total} 0:00:00 ")
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total, completed=first)

            def move(done: int, *words: str) -> None:
                fitted = fitting([word for word in words if word], room, ", ")
                bar.update(task, completed=done, description=f"{what}: {fitted}" if fitted else what)

            yield move
        return
    started, last, line = time.monotonic(), -float("inf"), f"{what}: {first:,} of {total:,}"
    seconds = line_seconds or LINE_SECONDS

    def show(done: int, *words: str) -> None:
        nonlocal last, line
        now = time.monotonic()
        remaining = (total - done) * (now - started) / (done - first) if done > first else 0.0
        left = f"{duration(remaining)} left" if remaining >= 1 else ""
        line = ", ".join(part for part in (f"{what}: {done:,} of {total:,}", *words, left) if part)
        if now - last >= seconds or done >= total:
            last = now
            console.print(line, highlight=False)

    def repeat() -> None:
        nonlocal last
        last = time.monotonic()
        console.print(f"{line} ... {duration(last - started)}", highlight=False)

    with _repeating(seconds, repeat, lambda: max(last, started)):
        yield show


@contextlib.contextmanager
def _repeating(seconds: float, say: Callable[[], None], last: Callable[[], float]) -> Iterator[None]:
    """Calls a function so many seconds after the last line, again and again, in a thread of its own, in the block."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds / 10):
            if time.monotonic() - last() >= seconds:
                say()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
