"""Collects demonstrations of a scripted expert: python experiments/collect_demos.py --task FrankaPickCube

OUT is a dataset that holds successes alone, demos/FrankaPickCube by default. Beside it, in OUT.about, lie the figures
of the collection and of the set (quality.md, quality.json), a picture (demos.png) and a video of each strategy
(video.mp4).

Ctrl-C, or a signal of a scheduler, leaves a dataset that can be read; `--resume --out OUT` goes on, and with more
--episodes enlarges it. The result is that of a collection that was never stopped.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from mjx_policies.data.paths import about
from mjx_policies.envs.base import Env
from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.envs.physics import Backend, resolve_backend
from mjx_policies.envs.registry import load, scene
from mjx_policies.envs.rendering.montage import Cell, render_montage
from mjx_policies.experiments.collection.collect import Collection, CollectionProgress, collect_until
from mjx_policies.experiments.collection.demonstration_files import (
    DatasetConfig,
    open_dataset,
    parse,
    randomized_dynamics,
    show,
)
from mjx_policies.experiments.collection.demonstrators import expert_demonstrator
from mjx_policies.experiments.collection.rollouts import Rollouts, make_recorder
from mjx_policies.files import read_json, write_json
from mjx_policies.training import config
from mjx_policies.training.config import at_least, may_change
from mjx_policies.training.preemption import Preemption, exit_code
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors
from mjx_policies.training.waiting import working

VIDEO_EPISODES = 3  # episodes of each strategy in the video
PROGRESS = "progress.json"  # how far a collection got


@dataclasses.dataclass(frozen=True)
class Collect(DatasetConfig):
    """Collects demonstrations of a scripted expert."""

    FILE: ClassVar[str] = "collection.json"

    task: str  # task name; one that has an expert
    episodes: int = may_change(1_000)  # number of successful episodes to collect
    labels: Literal["executed", "intended"] = "executed"  # actions to store; intended: without tremor and slips
    batch: int = 128  # number of parallel rollouts
    backend: Backend = "auto"  # physics engine: MuJoCo's C engine (cpu), MJX or MJX-Warp
    video: bool = may_change(True)  # record a video of some episodes of each strategy

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, episodes=1, batch=1)


def main(asked: Collect) -> None:
    """Collects, then shows what was collected."""
    console, progress = open_console(), read_progress(asked.path) if asked.resume else CollectionProgress()
    with clean_errors(ValueError):
        if not asked.resume:
            asked = dataclasses.replace(asked, backend=resolve_backend(asked.backend))  # wherever it is resumed
        task = load(asked.task, asked.backend, asked.batch, asked.actions)
        expert, dynamics = load_expert(asked.task, task), randomized_dynamics(task, asked.randomize)
        record = make_recorder(task, expert_demonstrator(expert), dynamics)
        collection = Collection(record, asked.task, asked.seed, asked.batch, asked.labels == "intended")
    first, done = None, progress.tally.successes
    if done >= asked.episodes:
        console.print(f"{asked.path} holds {done:,} demonstrations, --episodes is {asked.episodes:,}: none are added.")
    if not (asked.resume and asked.format == "robomimic" and asked.path.exists() and done >= asked.episodes):
        with Preemption() as preemption, open_dataset(asked, task.spec) as writer:
            write_progress(asked.path, progress)
            wanted = max(asked.episodes, len(writer))  # a killed process may have left more than it told of
            save = functools.partial(write_progress, asked.path)
            progress, first = collect_until(wanted, collection, writer, progress, console, preemption, save)
            done = len(writer)
            if progress.tally.successes < wanted:
                if asked.format == "lerobot":  # a file of robomimic is made once; until then its parts can be read
                    writer.close()
                console.print(
                    f"{asked.path}: stopped by {preemption.requested} with {done:,} of {wanted:,} demonstrations; "
                    f"go on with --resume --out {asked.path}"
                )
                raise SystemExit(exit_code(preemption.requested))
    title = f"{asked.task}: demonstrations of the scripted expert"
    show(asked.path, task, title, console, progress.tally, progress.seconds)
    if asked.video:
        with working(console, "drawing video.mp4"):
            draw_video(asked, task, first or collection.simulate(0), progress.tally.rollouts)
    beside = "figures, picture and video" if asked.video else "figures and picture"
    console.print(f"{asked.path}: {done:,} demonstrations; {beside} in {about(asked.path)}")


def write_progress(path: Path, progress: CollectionProgress) -> None:
    write_json(about(path) / PROGRESS, config.to_json(progress))


def read_progress(path: Path) -> CollectionProgress:
    """The progress of the collection of a dataset.

    Raises:
      UserError: it cannot be read.
    """
    file = about(path) / PROGRESS
    return config.from_json(CollectionProgress, read_json(file), str(file)) if file.exists() else CollectionProgress()


def draw_video(asked: Collect, task: Env, rollouts: Rollouts, counted: int) -> None:
    """The first successes of each strategy, a row each, among the first batch, of which so many rollouts counted."""
    cells = []
    for number, strategy in enumerate(rollouts.strategies):
        for row in np.flatnonzero((rollouts.success & (rollouts.strategy == number))[:counted])[:VIDEO_EPISODES]:
            length = int(rollouts.length[row])
            words = f"{strategy}, {length * task.spec.control_dt:.1f} s"
            cells.append(Cell([words], rollouts.qpos[: length + 1, row], rollouts.mocap_pos[row]))
    if cells:
        render_montage(scene(asked.task), cells, VIDEO_EPISODES, about(asked.path) / "video.mp4", task.spec.control_dt)


if __name__ == "__main__":
    with clean_errors():
        main(parse(Collect, __doc__))
