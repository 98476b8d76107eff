"""Says why a policy does not learn: python experiments/doctor.py demos/FrankaPickCube runs/a

Looks at a dataset, at a run folder, or at one of each: statistics of every number, whether actions belong to their
observations and to their time, what should not be known yet, whether four rows can be learned by heart, what gradients
and curves say. Prints each check with what it saw, then the suspects, each with the next experiment: a cause before
what it brings about or may explain, what costs little last. Writes a picture with the suspicious places marked.

Ends as a linter does: with 0 if nothing was found, with 1 if there is a suspect, with 2 if something cannot be read.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from mjx_policies.data.dataset import Dataset
from mjx_policies.data.episodes import Episode, NotFiniteError
from mjx_policies.data.formats import FORMATS, read, recognise
from mjx_policies.data.lerobot import LeRobotDataset
from mjx_policies.data.paths import about
from mjx_policies.diagnosis.base import Finding, listed
from mjx_policies.diagnosis.diagnosis import DATA_CHECKS, RUN_CHECKS, TRACE_CHECKS, Diagnosis, diagnose
from mjx_policies.diagnosis.overfitting import FIRST, Trace
from mjx_policies.diagnosis.picture import draw_diagnosis, histogram
from mjx_policies.diagnosis.runs import Run, read_run
from mjx_policies.diagnosis.steps import Steps, tabulate
from mjx_policies.envs.registry import TASKS, load
from mjx_policies.experiments.collection.demonstration_files import check_rate, check_task
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.files import output_file, write_json
from mjx_policies.training.progress import open_console
from mjx_policies.training.waiting import working

MAX_ROWS = 64  # numbers whose statistics are printed
BARS = " ▁▂▃▄▅▆▇█"
MEASURING = 2  # steps of `diagnose` before the checks: what explains what, four rows by heart


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Says why a policy does not learn."""

    paths: tyro.conf.Positional[tuple[Path, ...]]  # a dataset, a run folder, or one of each
    fps: float | None = None  # steps per second of the dataset, where the files do not say
    picture: str = ""  # PNG to write; empty: doctor.png in the run folder, or in DATASET.about
    json: str = ""  # file for the findings
    overwrite: bool = False  # replace files that --picture and --json name


@dataclasses.dataclass
class Reading:
    """The episodes of a dataset as they come, and what is noted beside them.

    Attributes:
      read: how many were.
      times: s, of the steps of each that was kept; None if the files do not say.
      spoiled: {episode: what is wrong}, of those with numbers that are not finite, which are left out.
    """

    dataset: Dataset
    progress: Progress
    read: int = 0
    times: list[np.ndarray] | None = dataclasses.field(default_factory=list)
    spoiled: dict[int, str] = dataclasses.field(default_factory=dict)

    def episodes(self) -> Iterator[Episode]:
        """Reads one after the other."""
        for number in self.progress.track(range(len(self.dataset)), description="reading episodes"):
            self.read = number + 1
            try:
                episode = self.dataset[number]
            except NotFiniteError as error:
                self.spoiled[number] = str(error)
                continue
            self._note_times(number)
            yield episode

    def _note_times(self, number: int) -> None:
        try:
            stamps = self.dataset.times(number) if isinstance(self.dataset, LeRobotDataset) else None
        except UserError:  # a dataset that was made elsewhere may lack them
            stamps = None
        if stamps is None:
            self.times = None
        elif self.times is not None:
            self.times.append(stamps)


def main(asked: Doctor) -> int:
    """Looks, prints and draws; returns the exit code."""
    dataset, run = sort_out(asked)
    if asked.fps is not None and not 0 < asked.fps < math.inf:
        raise UserError(f"fps is {asked.fps:g}, it must be above 0.")
    console = open_console()
    opened = None if dataset is None else read(dataset, fps=asked.fps)
    left = None if run is None else read_run(run)
    if opened is not None and left is not None and left.task:
        assert dataset is not None
        check_task(opened, dataset, left.task)
    if opened is not None:
        assert dataset is not None
        check_control_rate(opened, dataset, left.task if left is not None else "")
    picture = output_file(asked.picture, "--picture", asked.overwrite, default=default_picture(dataset, run))
    findings = output_file(asked.json, "--json", asked.overwrite) if asked.json else None
    if findings is not None and findings.resolve() == picture.resolve():
        raise UserError(f"--picture and --json both name {picture}: choose two files.")
    diagnosis = examine(opened, left, console)
    draw_diagnosis(picture, diagnosis, " and ".join(path.name for path in asked.paths))
    if findings is not None:
        write_json(findings, {"paths": [str(path) for path in asked.paths], **diagnosis.to_json()})
    if diagnosis.data is not None:
        console.print(statistics(diagnosis.data.steps))
    if diagnosis.trace is not None:
        console.print(gradients(diagnosis.trace))
    console.print(checklist(diagnosis))
    for line in verdict(diagnosis):
        console.print(line, highlight=False)
    console.print(f"picture: {picture}", highlight=False)
    return 1 if diagnosis.suspects else 0


def sort_out(asked: Doctor) -> tuple[Path | None, Path | None]:
    """Which of the paths is a dataset, and which a run folder."""
    runs = [path for path in asked.paths if any((path / name).is_file() for name in ("metrics.csv", "config.json"))]
    datasets = [path for path in asked.paths if path not in runs]
    if not asked.paths or len(runs) > 1 or len(datasets) > 1:
        raise UserError(
            f"pass one dataset, one run folder, or one of each; these are {len(datasets)} datasets and {len(runs)} "
            "run folders."
        )
    for path in datasets:
        if path.exists() and recognise(path) is None:
            raise UserError(
                f"{path} is neither a dataset of {', '.join(FORMATS)} (name its folder, or the .hdf5 file) nor a run "
                "folder, which has a metrics.csv and a config.json."
            )
    return next(iter(datasets), None), next(iter(runs), None)


def check_control_rate(dataset: Dataset, path: Path, task: str) -> None:
    """That a dataset has the rate of its task, which is the run's, or else the one that it was recorded in.

    Raises:
      UserError: it has not.
    """
    recorded = [name for name in dataset.tasks if name in TASKS]
    name = task or (recorded[0] if recorded else "")
    if name in TASKS:
        check_rate(dataset, path, name, load(name, num_envs=1).spec.control_dt)


def default_picture(dataset: Path | None, run: Path | None) -> Path:
    """In the run folder, or in the folder beside a dataset that says how it came about."""
    if run is not None:
        return run / "doctor.png"
    assert dataset is not None
    return about(dataset) / "doctor.png"


def examine(dataset: Dataset | None, run: Run | None, console: Console) -> Diagnosis:
    """Reads the dataset and runs all checks, with a bar for either."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    silent = contextlib.nullcontext(lambda words: None)  # the bars say it
    lines = silent if console.is_terminal else working(console, "reading and checking")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress, lines as say:
        steps, times, spoiled = None, None, None
        if dataset is not None:
            reading = Reading(dataset, progress)
            steps = table_of(reading)
            times = reading.times[: len(steps.fps)] if steps is not None and reading.times else None
            spoiled = not_finite(reading)
        if steps is None and run is None:
            diagnosis = Diagnosis({})
        else:
            checks = (MEASURING + len(DATA_CHECKS) + len(TRACE_CHECKS)) * (steps is not None) + len(RUN_CHECKS) * (
                run is not None
            )
            task = progress.add_task("looking", total=checks)

            def report(what: str) -> None:
                progress.update(task, advance=1, description=what)
                say(f"checking: {what}")

            diagnosis = diagnose(steps, run, report=report, times=times)
    if spoiled is not None:
        first: dict[str, Finding | None] = {"data: finite": spoiled}
        diagnosis = dataclasses.replace(diagnosis, findings=first | diagnosis.findings | first)
    return diagnosis


def table_of(reading: Reading) -> Steps | None:
    """All steps but those of spoiled episodes; None if no others are left."""
    episodes = reading.episodes()
    first = next(episodes, None)
    if first is None:
        return None

    def all_of_them() -> Iterator[Episode]:
        yield first
        yield from episodes

    return tabulate(all_of_them())


def not_finite(reading: Reading) -> Finding | None:
    """The suspect of episodes that could not be read for numbers that are not finite."""
    if not reading.spoiled:
        return None
    first, what = next(iter(reading.spoiled.items()))
    return Finding(
        f"{len(reading.spoiled)} of {reading.read} episodes hold numbers that are not finite, and are left out of all "
        f"that follows: {listed([str(number) for number in reading.spoiled])}",
        f"the data hold NaN or infinity, first in episode {first} ({what.rstrip('.')}).",
        "Drop or repair those steps, then find out which sensor or conversion wrote them.",
    )


def statistics(steps: Steps) -> Table:
    """The range and the shape of every number, as text."""
    count = int(steps.episode[-1]) + 1
    which = f"the first {count:,} episodes; there are more than can be held" if steps.cut else f"{count:,} episodes"
    table = Table(title=f"{len(steps):,} steps of {which}", title_justify="left")
    table.add_column("number")
    for name in ("min", "mean", "max", "std"):
        table.add_column(name, justify="right")
    table.add_column("histogram, min to max", no_wrap=True)
    columns = [(name, steps.observation[:, i]) for i, name in enumerate(steps.columns) if not steps.camera[i]]
    actions = [(f"action[{i}]", values) for i, values in enumerate(steps.action.T)]
    shown = (columns[: max(0, MAX_ROWS - len(actions))] + actions)[:MAX_ROWS]
    for name, values in shown:
        figures = (values.min(), values.mean(), values.max(), values.std())
        table.add_row(name, *(f"{number:.3g}" for number in figures), bars(histogram(values, 16)))
    if len(columns) + len(actions) > len(shown):
        table.caption = f"{len(columns) + len(actions) - len(shown)} more numbers are not shown"
    return table


def bars(portions: np.ndarray) -> str:  # [bins]
    """A histogram in one line; what is there at all is seen."""
    heights = np.ceil(portions / max(portions.max(), 1e-12) * (len(BARS) - 1)).astype(int)
    return "".join(BARS[height] for height in heights)


def gradients(trace: Trace) -> Table:
    """How learning four rows by heart went, in its first steps."""
    tenth = min(FIRST, len(trace.loss) - 1)
    table = Table(
        title=f"four rows by heart: loss {trace.loss[0]:.3g}, after {tenth} steps {trace.loss[tenth]:.3g}, after "
        f"{len(trace.loss)} {trace.loss[-1]:.3g}",
        title_justify="left",
    )
    table.add_column("gradient of")
    table.add_column("norm at first", justify="right")
    table.add_column(f"after {tenth} steps", justify="right")
    for name, norms in trace.gradient.items():
        table.add_row(name, f"{norms[0]:.3g}", f"{norms[tenth]:.3g}")
    return table


def checklist(diagnosis: Diagnosis) -> Table:
    """Every check and what it saw."""
    table = Table(title="checks", title_justify="left")
    table.add_column("")
    table.add_column("check", no_wrap=True)
    table.add_column("what it saw", overflow="fold")
    for name, finding in diagnosis.findings.items():
        if finding is None:
            table.add_row("-", name, "nothing to look at", style="dim")
        else:
            mark = Text("x", "bold red") if finding.suspect else Text("ok", "green")
            table.add_row(mark, name, finding.evidence)
    return table


def verdict(diagnosis: Diagnosis) -> Iterator[str]:
    """The suspects in order, each with the next experiment, or that there are none."""
    said = [name for name, finding in diagnosis.findings.items() if finding is not None]
    for number, (name, finding) in enumerate(diagnosis.suspects.items(), 1):
        yield f"suspect {number} ({name}): {finding.suspect}"
        yield f"  next: {finding.experiment}"
    if not diagnosis.suspects:
        silent = len(diagnosis.findings) - len(said)
        more = f". {silent} of {len(diagnosis.findings)} checks had nothing to look at" if silent else ""
        yield f"Nothing found. Checked: {', '.join(said)}{more}."


if __name__ == "__main__":
    with clean_errors(OSError):
        raise SystemExit(main(parse_arguments(Doctor, __doc__)))
