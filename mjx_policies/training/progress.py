"""Progress of a run: a bar in a terminal, a line within ten seconds anywhere else."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.status import Status
from rich.text import Text

from mjx_policies.training.metrics import Number
from mjx_policies.training.streams import drop


class LiteralConsole(Console):
    """A console that shows every text as it is, since paths, names and task texts may hold `[brackets]` or `:colons:`.

    What is to have a style is a `rich.text.Text`. The columns of a progress bar read markup on their own: give them
    `markup=False`.
    """

    def __init__(self, **options: Any):
        super().__init__(**{"markup": False, "emoji": False, **options})

    def status(self, status: Any, **options: Any) -> Status:
        """See `rich.console.Console.status`."""
        return _LiteralStatus(_literal(status), console=self, **{"spinner": spinner(self), **options})

    def on_broken_pipe(self) -> None:
        """Goes on without output: `| head` has seen enough, but the work is worth as much as before."""
        self.quiet = True
        drop(self.file)
        print("standard output is closed: going on without it", file=sys.stderr)


def spinner(console: Console) -> str:
    """The name of a spinner that the console can show."""
    return "line" if console.options.ascii_only else "dots"


class _LiteralStatus(Status):
    def update(self, status: Any = None, **options: Any) -> None:
        super().update(_literal(status), **options)


def _literal(text: Any) -> Any:
    return Text(text) if isinstance(text, str) else text


def open_console() -> LiteralConsole:
    """A console on standard output that breaks no sentence where there is no terminal, and so no width to keep."""
    return LiteralConsole(soft_wrap=sys.stdout is None or not sys.stdout.isatty())


class ProgressReport:
    """Shows phase, percent, steps, speed, chosen metrics and the time that is left; open it as a context.

    Args:
      total_steps: where the bar ends.
      show: full names of metrics, such as `env/reward`; printed without what is before their last slash, and with their
        last value where a row lacks them.
      console: where to write; standard output by default.
      line_seconds: seconds between lines where the console is no terminal.
    """

    def __init__(
        self, total_steps: int, show: Sequence[str] = (), console: Console | None = None, line_seconds: float = 9.0
    ):
        self.console = console or open_console()
        self._total = total_steps
        self._show = tuple(show)
        self._line_seconds = line_seconds
        self._latest: dict[str, float] = {}
        self._first: tuple[int, float] | None = None  # step and time of the first row since the start
        self._line, self._last_line = "", -float("inf")  # the last row, until it is printed; when one was
        self._last_sign = time.monotonic()  # when anything was printed
        self._phase, self._phase_since = "", time.monotonic()
        self._bar: Progress | None = None
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._say_that_it_goes_on, daemon=True)

    def __enter__(self) -> ProgressReport:
        if self.console.is_terminal:
            width = 24 if self.console.width >= 100 else 12
            columns: list[ProgressColumn] = [
                SpinnerColumn(spinner(self.console)),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=width),
                TextColumn("{task.percentage:>3.0f}%"),
                _Detail(self.console, width),
                TimeElapsedColumn(),
                _Remaining(),
            ]
            bar = Progress(*columns, console=self.console)
            self._task = bar.add_task("starting", total=self._total, detail=(), left=None)
            bar.start()
            self._bar = bar
        else:
            self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()
        else:
            self._beat.join()

    def _say_that_it_goes_on(self) -> None:
        """Prints the phase and its seconds where rows are far apart, as while something is compiled."""
        while not self._ended.wait(self._line_seconds / 10):
            now = time.monotonic()
            if self._phase and now - self._last_sign >= self._line_seconds:
                line, self._line = self._line or f"{self._phase} ... {duration(now - self._phase_since)}", ""
                self._last_line = self._last_sign = now
                self.console.print(line, highlight=False)

    def phase(self, name: str) -> None:
        """Says what happens now, such as `compiling`; a terminal shows the elapsed time beside it."""
        if name != self._phase and self._bar is not None:
            self._bar.update(self._task, description=name)
        elif name != self._phase and name not in ("training", "evaluating"):
            self.console.print(f"{name} ...", highlight=False)
            self._last_sign = time.monotonic()
        if name != self._phase:
            self._phase, self._phase_since = name, time.monotonic()

    def update(self, step: int, steps_per_second: float, row: Mapping[str, Number]) -> None:
        """Shows a logged row."""
        now = time.monotonic()
        self._first = self._first or (step, now)
        # From all the time that has passed, so evaluations and checkpoints count as well.
        done, passed = step - self._first[0], now - self._first[1]
        left = (self._total - step) * passed / done if done else None
        self._latest.update({name: float(row[name]) for name in self._show if name in row})
        parts = [f"{short_count(step)} steps"]
        if math.isfinite(steps_per_second):
            parts.append(f"{short_count(steps_per_second)}/s")
        parts += [f"{name.rsplit('/', 1)[-1]} {value:.3g}" for name, value in self._latest.items()]
        if self._bar is not None:
            self._bar.update(self._task, completed=step, detail=parts, left=left)
            return
        remaining = "" if left is None or step >= self._total else f"  {duration(left)} left"
        percent = 100 * step / max(self._total, 1)
        self._line = f"{percent:3.0f}%  {'  '.join(parts)}{remaining}"
        if now - self._last_line >= self._line_seconds or step >= self._total:
            line, self._line = self._line, ""
            self._last_line = self._last_sign = now
            self.console.print(line, highlight=False)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._last_sign = time.monotonic()
        self.console.print(text, highlight=False, markup=False)


class _Detail(ProgressColumn):
    """The column of the figures, as many as fit beside all else: on a narrow terminal they go, rather than the bar."""

    def __init__(self, console: Console, bar_width: int):
        super().__init__()
        self._console, self._bar_width = console, bar_width

    def render(self, task: Task) -> Text:
        spinner_, percent, elapsed, left, spaces = 1, 4, 8, 11, 6
        others = spinner_ + len(task.description) + self._bar_width + percent + elapsed + left + spaces
        return Text(fitting(task.fields["detail"], self._console.width - others), no_wrap=True)


class _Remaining(ProgressColumn):
    """The column of the time that is left."""

    def render(self, task: Task) -> Text:
        left = task.fields["left"]
        return Text("" if left is None else f"{duration(left)} left", style="progress.remaining")


def fitting(parts: Sequence[str], width: int, between: str = "  ") -> str:
    """The first parts, as many as fit into so many characters.

    Example:
      >>> fitting(("12 of 80", "7 failed", "3s left"), 20, between=", ")
      '12 of 80, 7 failed'
    """
    fitted = ""
    for part in parts:
        longer = f"{fitted}{between}{part}" if fitted else part
        if len(longer) > width:
            break
        fitted = longer
    return fitted


def short_count(number: float) -> str:
    """A count with three digits: 950, 1.23k, 45.6M.

    Example:
      >>> short_count(12_345), short_count(999_999)
      ('12.3k', '1.00M')
    """
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * factor:
            value = number / factor
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Formats seconds as people write them.

    Example:
      >>> duration(7), duration(83), duration(7_380)
      ('7s', '1m 23s', '2h 03m')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
