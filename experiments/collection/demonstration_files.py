"""Demonstration files: where a dataset lies and how it goes on, what is told beside it, and whether it suits a task."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from rich.console import Console

from mjx_policies.data.dataset import Dataset, readable
from mjx_policies.data.episodes import Episode
from mjx_policies.data.formats import FORMATS, EpisodeWriter, WritableFormat, read
from mjx_policies.data.paths import HDF5, about, beside, check_folder, telling
from mjx_policies.diagnosis.report import Tally, report_demonstrations
from mjx_policies.diagnosis.report_picture import draw_report
from mjx_policies.envs.base import DynamicsSampler, Env, EnvSpec, Nominal
from mjx_policies.envs.franka.actions import ActionName
from mjx_policies.envs.registry import TASKS
from mjx_policies.errors import UserError
from mjx_policies.experiments.collection.collect import MAX_SEED
from mjx_policies.files import make_folder, read_json, write_atomic, write_json
from mjx_policies.randomization.domain import DomainRandomization, randomize
from mjx_policies.randomization.presets import PRESETS
from mjx_policies.spec import table_size, table_slices
from mjx_policies.training import command_line, config
from mjx_policies.training.checkpoint import remove
from mjx_policies.training.config import may_change
from mjx_policies.training.waiting import working

ROBOT = frozenset(
    (
        *("gyro", "gravity", "joint_position", "joint_velocity", "finger_opening", "tcp_position", "tcp_rotation"),
        *("position", "velocity", "angle_cos_sin", "cart_velocity", "pole_velocity", "last_action"),
    )
)
"""Terms of observations that are the robot's own; others are of objects, goals and commands."""
RATE_TOLERANCE = 0.01  # portion by which a recorder's clock may be off


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """The dataset that a script collects, and where it goes."""

    FILE: ClassVar[str]  # in the folder beside a dataset: the configuration that it was begun with

    task: str
    out: str = may_change("")  # output folder, for robomimic a file that ends in .hdf5; empty: demos/TASK
    format: WritableFormat = "lerobot"  # dataset format
    actions: ActionName | None = None  # action space of an arm; None: the task's default
    randomize: float = 0.0  # scale of the ranges of masses, friction, motors in the robot's preset; 0: nominal
    seed: int = 0  # random seed of the initial states; datasets of different seeds share none
    resume: bool = may_change(False)  # continue the dataset in --out; options that are not given keep their values

    def __post_init__(self) -> None:
        if not 0 <= self.seed < MAX_SEED:
            raise ValueError(f"seed is {self.seed}, it must be at least 0 and below {MAX_SEED:,}.")
        if not 0 <= self.randomize < np.inf:
            raise ValueError(f"randomize is {self.randomize}, it must be a number from 0 on.")

    @property
    def path(self) -> Path:
        """The dataset: a folder, for robomimic a file."""
        path = Path(self.out or f"demos/{self.task}")
        hdf5 = self.format == "robomimic" and path.suffix not in HDF5
        return beside(path, ".hdf5") if hdf5 else path


C = TypeVar("C", bound=DatasetConfig)


def parse(kind: type[C], description: str | None = None, arguments: Sequence[str] | None = None) -> C:
    """Reads a command line; with --resume, what it leaves out is as it was when the dataset was begun.

    Raises:
      UserError: there is no such dataset, or it was begun otherwise.
    """
    asked = command_line.parse(kind, description, arguments, "out", functools.partial(read_begun, kind))
    if asked.resume:
        check_same(asked.path, read_begun(kind, asked.path), asked)
    return asked


def read_begun(kind: type[C], out: str | Path) -> C:
    """The configuration that a dataset was begun with.

    Args:
      kind: of the configuration.
      out: path of the dataset, also without the ending of a file.

    Raises:
      UserError: it was not begun by the script of this configuration, or by another version.
    """
    folders = [about(path) for path in (Path(out), beside(Path(out), ".hdf5"))]
    for folder in folders:
        if (folder / kind.FILE).exists():
            return config.from_json(kind, read_json(folder / kind.FILE))
    if any((folder / "campaign.json").exists() for folder in folders):
        raise UserError(
            f"{out} was begun by an earlier version of this script: go on with that one, or train on what there is and "
            "collect more into another --out, with another --seed."
        )
    raise UserError(
        f"{out} was not begun by this script, there is no {folders[0] / kind.FILE}: choose another --out, without "
        "--resume."
    )


def check_same(path: Path, before: Any, now: Any) -> None:
    """Refuses to go on with a dataset in another way than it was begun.

    Raises:
      UserError: it does not.
    """
    changed = config.differences(before, now)
    if changed:
        raise UserError(f"{path} goes on as it began, but {'; '.join(changed)}. Leave out what differs, or start anew.")


@contextlib.contextmanager
def open_dataset(asked: DatasetConfig, spec: EnvSpec) -> Iterator[EpisodeWriter]:
    """A writer of a dataset, and beside it the folder that says how it came about.

    What was added can be read afterwards, however the block ends. One that fails before anything was added to a new
    dataset leaves nothing.

    Raises:
      UserError: a dataset cannot be written there, lies there already, or cannot go on.
    """
    path, folder, parts = asked.path, about(asked.path), beside(asked.path, ".parts")
    robomimic = asked.format == "robomimic"
    if not robomimic:
        check_folder(path)
    with telling(path, "write"):
        finished = robomimic and path.exists()
        taken = any(path.iterdir()) if path.is_dir() else path.exists() or path.is_symlink()
        taken = taken or (robomimic and parts.exists())
    if asked.resume and finished:
        raise UserError(
            f"{path} is finished, and a file of robomimic cannot go on: collect into another, with another --seed."
        )
    if taken and not asked.resume:
        goes_on = (folder / asked.FILE).exists() and not finished
        advice = f", or go on with --resume --out {path}" if goes_on else ""
        raise UserError(f"{path} holds something already: choose another --out{advice}.")
    with FORMATS[asked.format].Writer(path, append=asked.resume, **describe_robot(spec)) as writer:
        new = not folder.exists()
        try:
            make_folder(folder, "--out")
            kept = dataclasses.replace(asked, out=str(path), resume=False)
            write_json(folder / asked.FILE, config.to_json(kept))
            yield writer
        except (Exception, KeyboardInterrupt):
            if not asked.resume and not len(writer):
                writer.discard()
                if new:
                    remove(folder)
            raise


def describe_robot(spec: EnvSpec) -> dict[str, Any]:
    """The robot's description in a dataset, as options of its writer: name, actions, and what is not the robot."""
    rows = table_slices(spec.observation)
    others = [place for term, where in rows.items() if term not in ROBOT for place in range(where.start, where.stop)]
    if len(others) == table_size(spec.observation):
        others = []
    return {"robot": spec.robot, "action_names": spec.action.names, "environment": others}


def check_task(dataset: Dataset, path: str | Path, task: str) -> None:
    """Refuses a dataset that was recorded in another task.

    What was recorded elsewhere names no task of this library, but says in words what to do: it may be anything.

    Raises:
      UserError: it was.
    """
    try:
        recorded = next((each.task for each in readable(dataset, lambda sentence: None)), task)
    except UserError:  # for those to say who read it all
        return
    if recorded in TASKS and recorded != task:
        raise UserError(f"{path} was recorded in {recorded}, not in {task}: take another dataset, or that task.")


def check_rate(dataset: Dataset, path: str | Path, task: str, control_dt: float) -> None:
    """Refuses a dataset with another control rate than its task: every velocity and delay would differ.

    Raises:
      UserError: it has not.
    """
    if not math.isclose(dataset.fps * control_dt, 1.0, rel_tol=RATE_TOLERANCE):
        raise UserError(
            f"{path} has {dataset.fps:g} steps a second, {task} acts {1 / control_dt:g} times a second: take a dataset "
            "of that rate, or resample it."
        )


def randomized_dynamics(task: Env, scale: float) -> DynamicsSampler:
    """The sampler of each episode's robot, from its preset's ranges times a factor.

    Raises:
      UserError: nobody knows how this robot varies.
    """
    if not scale:
        return Nominal()
    if task.spec.robot not in PRESETS:
        raise UserError("--randomize needs a robot with a preset of its ranges, and this task's has none.")
    randomization = dataclasses.replace(DomainRandomization().scaled(0.0), dynamics=scale)
    return randomize(task, randomization)[1]


def show(
    path: Path,
    task: Env,
    title: str,
    console: Console,
    tally: Tally | None = None,
    seconds: Mapping[str, float] | None = None,
) -> None:
    """Prints the report on a dataset on the disk, and writes it beside, with a picture."""
    folder, dataset = about(path), read(path)
    with working(console, "checking the dataset") as say:

        def counted() -> Iterator[Episode]:
            for number in range(len(dataset)):
                say(f"checking the dataset: {number:,} of {len(dataset):,}")
                yield dataset[number]

        report = report_demonstrations(counted(), task.spec.observation, tally, seconds)
        text = report.to_markdown(title)
        write_json(folder / "quality.json", report.to_json())
        write_atomic(folder / "quality.md", text)
        say("drawing")
        draw_report(folder / "demos.png", report, title)
    console.print(text, highlight=False)
