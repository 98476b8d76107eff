"""What collect_demos.py and record_demos.py share: where a dataset lies, which robots act, how a dataset is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from mjx_policies.data import packages
from mjx_policies.data.formats import WritableFormat, read
from mjx_policies.data.quality import Tally
from mjx_policies.data.survey import survey, to_json, to_markdown
from mjx_policies.data.survey_picture import draw_survey
from mjx_policies.envs.base import DynamicsSampler, Env, Nominal
from mjx_policies.randomization.imperfections import Imperfections, imperfect
from mjx_policies.randomization.presets import PRESETS
from mjx_policies.training.errors import UserError
from mjx_policies.training.files import make_folder, write_atomic, write_json


def dataset_path(out: str, task: str, format: WritableFormat) -> Path:
    """Of a dataset: a folder, for robomimic a file."""
    path = Path(out or f"demos/{task}")
    if format == "robomimic" and path.suffix not in (".hdf5", ".h5"):
        path = path.with_name(f"{path.name}.hdf5")
    return path


def prepare(path: Path, format: WritableFormat) -> None:
    """Makes the folder beside a dataset, before hours of work meet a package that is missing or a place out of bounds.

    Raises:
      UserError: a dataset cannot be written there.
    """
    packages.load("h5py" if format == "robomimic" else "pyarrow", "writing a dataset")
    make_folder(about(path), "--out")


def about(path: Path) -> Path:
    """The folder beside a dataset that says how it came about."""
    return path.with_name(f"{path.name}.about")


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
    with console.status("looking through the dataset") as status:

        def counted() -> Iterator[Any]:
            for number in range(len(dataset)):
                if number % 50 == 0:
                    status.update(f"looking through the dataset: {number:,} of {len(dataset):,}")
                yield dataset[number]

        surveyed = survey(counted(), task.spec.observation)
        text = to_markdown(surveyed, title, tally, seconds)
        write_json(folder / "quality.json", to_json(surveyed, tally, seconds))
        write_atomic(folder / "quality.md", text)
        status.update("drawing")
        draw_survey(folder / "demos.png", surveyed, title, tally)
    console.print(text, highlight=False, markup=False)
