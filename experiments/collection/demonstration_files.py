"""What collect_demos.py and record_demos.py share: where a dataset lies and how it goes on, which robots act."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from rich.console import Console

from mjx_policies.data import lerobot, packages, robomimic
from mjx_policies.data.dataset import Dataset, readable
from mjx_policies.data.formats import WritableFormat, read
from mjx_policies.data.paths import about, beside, telling
from mjx_policies.data.quality import Tally
from mjx_policies.data.survey import survey, to_json, to_markdown
from mjx_policies.data.survey_picture import draw_survey
from mjx_policies.envs.base import DynamicsSampler, Env, EnvSpec, Nominal
from mjx_policies.envs.registry import TASKS
from mjx_policies.randomization.imperfections import Imperfections, imperfect
from mjx_policies.randomization.presets import PRESETS
from mjx_policies.training import config
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.errors import UserError
from mjx_policies.training.files import make_folder, write_atomic, write_json
from mjx_policies.training.waiting import working
from mjx_policies.types import table_size, table_slices

C = TypeVar("C")
ROBOT = frozenset(
    (
        *("gyro", "gravity", "joint_position", "joint_velocity", "finger_opening", "tcp_position", "tcp_rotation"),
        *("position", "velocity", "angle_cos_sin", "cart_velocity", "pole_velocity", "last_action"),
    )
)
"""Terms of observations that are the robot's own; others are of objects, goals and commands."""
RATE_TOLERANCE = 0.01  # portion by which a recorder's clock may be off


def dataset_path(out: str, task: str, format: WritableFormat) -> Path:
    """Of a dataset: a folder, for robomimic a file."""
    path = Path(out or f"demos/{task}")
    if format == "robomimic" and path.suffix not in (".hdf5", ".h5"):
        path = beside(path, ".hdf5")
    return path


def prepare(path: Path, format: WritableFormat, resume: bool, file: str) -> None:
    """Makes the folder beside a dataset, before hours of work meet a package that is missing or a place out of bounds.

    Args:
      path: of the dataset.
      format: of the dataset.
      resume: whether it goes on.
      file: in the folder beside a dataset, written by the script that begins it.

    Raises:
      UserError: a dataset cannot be written there, or lies there already.
    """
    packages.load("h5py" if format == "robomimic" else "pyarrow", "writing a dataset")
    with telling(path, "write"):
        taken = any(path.iterdir()) if path.is_dir() else path.exists() or path.is_symlink()
        taken = taken or (format == "robomimic" and beside(path, ".parts").exists())
    if taken and not resume:
        goes_on = (about(path) / file).exists() and not (format == "robomimic" and path.exists())
        advice = f", or go on with --resume --out {path}" if goes_on else ""
        raise UserError(f"{path} holds something already: choose another --out{advice}.")
    make_folder(about(path), "--out")


def describe_robot(spec: EnvSpec) -> dict[str, Any]:
    """What a dataset says of the robot, as options of its writer: its name, its actions, and what is not the robot."""
    rows = table_slices(spec.observation)
    others = [place for term, where in rows.items() if term not in ROBOT for place in range(where.start, where.stop)]
    if len(others) == table_size(spec.observation):
        others = []
    return {"robot": spec.robot, "action_names": spec.action.names, "environment": others}


@contextlib.contextmanager
def open_writer(path: Path, format: WritableFormat, spec: EnvSpec, resume: bool) -> Iterator[Any]:
    """Whatever happens, what was added can be read afterwards; the caller closes.

    Raises:
      UserError: there is something else, or what cannot go on.
    """
    if format == "robomimic":
        if resume and path.exists():
            raise UserError(
                f"{path} is finished, and a file of robomimic cannot go on: collect into another, with another --seed."
            )
        yield robomimic.Writer(path, append=resume, **describe_robot(spec))
        return
    writer = lerobot.Writer(path, append=resume, **describe_robot(spec))
    try:
        yield writer
    finally:
        writer.release()


def parse(
    kind: type[C], file: str, before: Callable[[Path], C], description: str | None, arguments: Sequence[str] | None
) -> C:
    """Reads a command line; with --resume, what it leaves out is as it was when the dataset was begun.

    Args:
      kind: of the configuration; it has `out` and `resume`.
      file: in the folder beside a dataset, written by the script that began it.
      before: the configuration that a dataset was begun with.
      description: for --help.
      arguments: of the command line; the process's own by default.

    Raises:
      UserError: there is no such dataset.
    """

    @dataclasses.dataclass(frozen=True)
    class Which:
        out: str = ""
        resume: bool = False

    which, _ = tyro.cli(Which, args=arguments, return_unknown_args=True, add_help=False)
    if not which.resume:
        return parse_arguments(kind, description, arguments)
    if not which.out:
        raise UserError("--resume goes on with the dataset in --out, which is missing: pass the dataset's path.")
    out = Path(which.out)
    begun = next((path for path in (out, beside(out, ".hdf5")) if (about(path) / file).exists()), None)
    if begun is None:
        raise UserError(
            f"{out} was not begun by this script, there is no {about(out) / file}: choose another --out, without "
            "--resume."
        )
    return parse_arguments(kind, description, arguments, default=before(begun))


def check_same(path: Path, before: Any, now: Any) -> None:
    """That a dataset goes on as it was begun.

    Raises:
      UserError: it does not.
    """
    changed = config.differences(before, now)
    if changed:
        raise UserError(f"{path} goes on as it began, but {'; '.join(changed)}.")


def check_task(dataset: Dataset, path: str | Path, task: str) -> None:
    """That a dataset was not recorded in another task.

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
    """That a dataset has as many steps a second as its task; at another rate every velocity and delay would differ.

    Raises:
      UserError: it has not.
    """
    if not math.isclose(dataset.fps * control_dt, 1.0, rel_tol=RATE_TOLERANCE):
        raise UserError(
            f"{path} has {dataset.fps:g} steps a second, {task} acts {1 / control_dt:g} times a second: take a dataset "
            "of that rate, or resample it."
        )


def robots(task: Env, randomize: float) -> DynamicsSampler:
    """What robot acts in each episode: drawn from its preset's ranges times a factor.

    Raises:
      UserError: nobody knows how this robot varies.
    """
    if not randomize:
        return Nominal()
    if task.spec.robot not in PRESETS:
        raise UserError("--randomize needs a robot with a preset of its ranges, and this task's has none.")
    imperfections = dataclasses.replace(Imperfections().scaled(0.0), dynamics=randomize)
    return imperfect(task, imperfections)[1]


def show(
    path: Path,
    task: Env,
    title: str,
    console: Console,
    tally: Tally | None = None,
    seconds: Mapping[str, float] | None = None,
) -> None:
    """Looks through a dataset on the disk, prints what there is to say of it, and writes it beside, with a picture."""
    folder, dataset = about(path), read(path)
    with working(console, "looking through the dataset") as say:

        def counted() -> Iterator[Any]:
            for number in range(len(dataset)):
                if number % 50 == 0:
                    say(f"looking through the dataset: {number:,} of {len(dataset):,}")
                yield dataset[number]

        surveyed = survey(counted(), task.spec.observation)
        text = to_markdown(surveyed, title, tally, seconds)
        write_json(folder / "quality.json", to_json(surveyed, tally, seconds))
        write_atomic(folder / "quality.md", text)
        say("drawing")
        draw_survey(folder / "demos.png", surveyed, title, tally)
    console.print(text, highlight=False)
