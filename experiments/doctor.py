"""Says why a policy does not learn: python experiments/doctor.py demos/FrankaPickCube runs/a

Checks a dataset, a run folder, or one of each: statistics of every number, whether actions belong to their
observations and to their time, what should not be known yet, whether one batch can be overfitted, what gradients and
curves say. Prints each check with what it saw, then the findings, each with the next experiment: a cause before what
it brings about or may explain, what costs little last. Writes a picture with the places of findings marked.

Ends as a linter does: with 0 if nothing was found, with 1 if there is a finding, with 2 if something cannot be read.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from mjx_policies.data.dataset import Dataset
from mjx_policies.data.episodes import Episode, NotFiniteError
from mjx_policies.data.formats import FORMATS, read, recognise
from mjx_policies.data.lerobot import LeRobotDataset
from mjx_policies.data.paths import about
from mjx_policies.diagnosis.base import CheckResult, listed
from mjx_policies.diagnosis.diagnosis import DATA_CHECKS, RUN_CHECKS, TRACE_CHECKS, Diagnosis, diagnose
from mjx_policies.diagnosis.overfitting import FIRST, Trace
from mjx_policies.diagnosis.picture import draw_diagnosis, histogram
from mjx_policies.diagnosis.runs import Run, read_run
from mjx_policies.diagnosis.steps import Steps, tabulate
from mjx_policies.envs.registry import TASKS, load
from mjx_policies.errors import UserError
from mjx_policies.experiments.collection.demonstration_files import check_rate, check_task
from mjx_policies.experiments.runs.loading import member_file, read_members
from mjx_policies.files import output_file, write_json
from mjx_policies.spec import Table as Observations
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors
from mjx_policies.training.waiting import counting

MAX_ROWS = 64  # numbers whose statistics are printed
MARKS = {"x": "bold red", "note": "yellow", "ok": "green", "-": ""}  # and their colours
BARS = " ▁▂▃▄▅▆▇█"
MEASURING = 1  # step of `diagnose` before the checks of data: overfitting one batch


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Says why a policy does not learn."""

    paths: tyro.conf.Positional[tuple[Path, ...]]  # dataset, run folder, or one of each
    number: int = 0  # number of the run in a sweep
    fps: float | None = None  # steps per second of the dataset, where the files do not say
    picture: str = ""  # PNG file; empty: doctor.png in the run folder, or in DATASET.about
    json: str = ""  # JSON file for the findings
    overwrite: bool = False  # replace files that --picture and --json name

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ValueError(f"fps is {self.fps:g}, it must be above 0.")


def main(asked: Doctor) -> int:
    """Runs the checks, prints and draws them; returns the exit code."""
    data_path, run_path = sort_out(asked)
    console = open_console()
    run = run_path and open_run(run_path, asked.number)
    dataset, table = open_dataset(data_path, asked.fps, run.task if run else "") if data_path else (None, ())
    default = default_picture(data_path, run_path, asked.number)
    picture = output_file(asked.picture, "--picture", asked.overwrite, default=default)
    json = output_file(asked.json, "--json", asked.overwrite) if asked.json else None
    if json is not None and json.resolve() == picture.resolve():
        raise UserError(f"--picture and --json both name {picture}: choose two files.")
    diagnosis = run_checks(dataset, table, run, console)
    draw_diagnosis(picture, diagnosis, " and ".join(path.name for path in asked.paths))
    if json is not None:
        write_json(json, {"paths": [str(path) for path in asked.paths], **diagnosis.to_json()})
    if diagnosis.data is not None:
        console.print(statistics(diagnosis.data.steps))
    if diagnosis.trace is not None:
        console.print(gradients(diagnosis.trace))
    console.print(checklist(diagnosis))
    for line in diagnosis.verdict():
        console.print(line, highlight=False)
    console.print(f"picture: {picture}", highlight=False)
    return 1 if diagnosis.findings else 0


def sort_out(asked: Doctor) -> tuple[Path | None, Path | None]:
    """The dataset and the run folder among the paths."""
    runs = [path for path in asked.paths if any((path / name).is_file() for name in ("metrics.csv", "config.json"))]
    datasets = [path for path in asked.paths if path not in runs]
    if not asked.paths or len(runs) > 1 or len(datasets) > 1:
        raise UserError(
            f"pass one dataset, one run folder, or one of each; these are {len(datasets)} datasets and {len(runs)} "
            "run folders."
        )
    if asked.number and not runs:
        raise UserError("--number is of a run in a sweep: pass its run folder too, or leave it out.")
    for path in datasets:
        if path.exists() and recognise(path) is None:
            raise UserError(
                f"{path} is neither a dataset of {', '.join(FORMATS)} (name its folder, or the .hdf5 file) nor a run "
                "folder, which has a metrics.csv and a config.json."
            )
    return next(iter(datasets), None), next(iter(runs), None)


def open_dataset(path: Path, fps: float | None, task: str) -> tuple[Dataset, Observations]:
    """A dataset that has the rate of its task, the run's or else the one it was recorded in, and what that observes.

    Raises:
      UserError: it has not, or is of another task than the run.
    """
    dataset = read(path, fps=fps)
    if task:
        check_task(dataset, path, task)
    name = task or next((recorded for recorded in dataset.tasks if recorded in TASKS), "")
    if name not in TASKS:
        return dataset, ()
    spec = load(name, num_envs=1).spec
    check_rate(dataset, path, name, spec.control_dt)
    return dataset, spec.observation


def open_run(path: Path, number: int) -> Run:
    """A run; of a sweep the one of this number, with its own hyperparameters.

    Raises:
      UserError: there is none.
    """
    if not number and not (path / "sweep.csv").exists():
        return read_run(path)  # which any script may have made
    member = read_members(path, number)[1][number]
    return dataclasses.replace(read_run(path, number), hyper=vars(member.config.hyper))


def default_picture(dataset: Path | None, run: Path | None, number: int = 0) -> Path:
    """The default path of the picture: in the run folder, or in the folder beside a dataset."""
    return run / member_file("doctor.png", run, number) if run else about(dataset) / "doctor.png"


def run_checks(dataset: Dataset | None, table: Observations, run: Run | None, console: Console) -> Diagnosis:
    """Reads the dataset and runs all checks, with a bar for either."""
    steps, times, spoiled = (None, None, {}) if dataset is None else read_steps(dataset, table, console)
    diagnosis = Diagnosis({})
    if steps is not None or run is not None:
        total = (MEASURING + len(DATA_CHECKS) + len(TRACE_CHECKS)) * (steps is not None) + len(RUN_CHECKS) * bool(run)
        done = itertools.count(1)
        with counting(console, "checks", total) as progress:
            diagnosis = diagnose(steps, run, report=lambda what: progress(next(done), what), times=times)
    return dataclasses.replace(diagnosis, results=spoiled | diagnosis.results | spoiled)


def read_steps(
    dataset: Dataset, table: Observations, console: Console
) -> tuple[Steps | None, list[np.ndarray] | None, dict[str, CheckResult]]:
    """Reads the steps of a dataset whose observation `state` the table describes.

    Returns:
      All steps but those of episodes with numbers that are not finite, None if no others are left; their times in s, of
      each episode, None if the files do not say; and what there is to say of the episodes that are left out.
    """
    times: list[np.ndarray | None] = []
    spoiled: dict[int, str] = {}

    def episodes() -> Iterator[Episode]:
        for number in range(len(dataset)):
            progress(number + 1, "")
            try:
                episode = dataset[number]
            except NotFiniteError as error:
                spoiled[number] = str(error)
                continue
            try:
                times.append(dataset.times(number) if isinstance(dataset, LeRobotDataset) else None)
            except UserError:  # a dataset that was made elsewhere may lack them
                times.append(None)
            yield episode

    with counting(console, "reading episodes", len(dataset)) as progress:
        rest = episodes()
        first = next(rest, None)
        steps = None if first is None else tabulate(itertools.chain([first], rest), table)
    known = [each for each in times if each is not None]
    complete = steps is not None and len(known) == len(times)
    return steps, known[: len(steps.fps)] if complete else None, not_finite(len(times), spoiled)


def not_finite(intact: int, spoiled: dict[int, str]) -> dict[str, CheckResult]:
    """The result for episodes with numbers that are not finite, which could not be read."""
    if not spoiled:
        return {}
    first, what = next(iter(spoiled.items()))
    result = CheckResult(
        f"{len(spoiled)} of {intact + len(spoiled)} episodes hold numbers that are not finite, and are left out of all "
        f"that follows: {listed([str(number) for number in spoiled])}",
        f"the data hold NaN or infinity, first in episode {first} ({what.rstrip('.')}).",
        "Drop or repair those steps, then find out which sensor or conversion wrote them.",
    )
    return {"data: finite": result}


def statistics(steps: Steps) -> Table:
    """The range and the shape of every number, as text."""
    count = int(steps.episode[-1]) + 1
    which = f"the first {count:,} episodes; there are more than can be held" if steps.cut else f"{count:,} episodes"
    table = Table(
        "number",
        *(Column(name, justify="right") for name in ("min", "mean", "max", "std")),
        Column("histogram, min to max", no_wrap=True),
        title=f"{len(steps):,} steps of {which}",
        title_justify="left",
    )
    columns = [(name, steps.observation[:, i]) for i, name in enumerate(steps.columns) if not steps.camera[i]]
    actions = [(f"action[{i}]", values) for i, values in enumerate(steps.action.T)]
    chosen = (columns[: max(0, MAX_ROWS - len(actions))] + actions)[:MAX_ROWS]
    for name, values in chosen:
        figures = (values.min(), values.mean(), values.max(), values.std())
        table.add_row(name, *(f"{number:.3g}" for number in figures), bars(histogram(values, 16)))
    if len(columns) + len(actions) > len(chosen):
        table.caption = f"{len(columns) + len(actions) - len(chosen)} more numbers are left out"
    return table


def bars(portions: np.ndarray) -> str:  # [bins]
    """A histogram in one line; what is there at all is seen."""
    heights = np.ceil(portions / max(portions.max(), 1e-12) * (len(BARS) - 1)).astype(int)
    return "".join(BARS[height] for height in heights)


def gradients(trace: Trace) -> Table:
    """The gradient norms while one batch is overfitted, as a table."""
    tenth = min(FIRST, len(trace.loss) - 1)
    table = Table(
        "gradient of",
        Column("norm at first", justify="right"),
        Column(f"after {tenth} steps", justify="right"),
        title=f"overfit one batch: loss {trace.loss[0]:.3g}, after {tenth} steps {trace.loss[tenth]:.3g}, after "
        f"{len(trace.loss)} {trace.loss[-1]:.3g}",
        title_justify="left",
    )
    for name, norms in trace.gradient.items():
        table.add_row(name, f"{norms[0]:.3g}", f"{norms[tenth]:.3g}")
    return table


def checklist(diagnosis: Diagnosis) -> Table:
    """The checks and what each saw, as a table."""
    table = Table(
        "",
        Column("check", no_wrap=True),
        Column("what it saw", overflow="fold"),
        title="checks",
        title_justify="left",
    )
    for mark, name, evidence in diagnosis.rows():
        table.add_row(Text(mark, MARKS[mark]), name, evidence, style="dim" if mark == "-" else None)
    return table


if __name__ == "__main__":
    with clean_errors(OSError):
        raise SystemExit(main(parse_arguments(Doctor, __doc__)))
