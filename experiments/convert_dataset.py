"""Writes a dataset in another format: python experiments/convert_dataset.py demos demos.hdf5

Reads LeRobot, robomimic and Minari, writes LeRobot or, where OUT ends in .hdf5, robomimic. Episodes that cannot be read
are skipped, and told of. A conversion that was stopped goes on with --append; one that failed leaves nothing.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from mjx_policies.data import lerobot, robomimic
from mjx_policies.data.dataset import Dataset, readable, remarks
from mjx_policies.data.episodes import Episode
from mjx_policies.data.formats import kept, read
from mjx_policies.data.paths import HDF5, check_folder
from mjx_policies.errors import UserError
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.preemption import Preempted, Preemption
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors
from mjx_policies.training.waiting import counting


@dataclasses.dataclass(frozen=True)
class Convert:
    """Writes a dataset in another format."""

    source: tyro.conf.Positional[Path]  # dataset to read: folder or file
    out: tyro.conf.Positional[Path]  # dataset to write: folder for LeRobot, .hdf5 file for robomimic
    fps: float | None = None  # steps per second, where the source does not say
    videos: bool = False  # keep RGB pictures as video in LeRobot: small, and lossy
    only_successes: bool = False  # leave out episodes that are not known to have succeeded
    append: bool = False  # continue a conversion of the same source


def main(convert: Convert) -> None:
    """Reads an episode, writes it, and so on."""
    dataset = read(convert.source, fps=convert.fps)
    to_robomimic = convert.out.suffix in HDF5
    if not to_robomimic:
        check_folder(convert.out)
    if to_robomimic and convert.videos:
        raise UserError("robomimic has no videos: leave out --videos, or choose a folder for LeRobot.")
    if convert.out.resolve() == convert.source.resolve():
        raise UserError(f"{convert.out} is what is to be converted: choose another OUT.")
    console = open_console()
    say = functools.partial(console.print, highlight=False)
    for sentence in remarks(dataset):
        say(sentence)
    options: dict[str, Any] = {"videos": True} if convert.videos else {}
    module = robomimic if to_robomimic else lerobot
    writer = module.Writer(convert.out, append=convert.append, **kept(dataset), **options)
    skipped: list[int] = []
    total = len(dataset)
    try:
        with Preemption() as preemption, counting(console, "episodes", total) as progress, writer:
            for episode in pending(convert, dataset, len(writer), say, skipped.append):
                preemption.check()
                writer.add(episode)
                progress(len(writer) + len(skipped))
        if not len(writer):
            raise UserError(f"{convert.source} has no episode that is known to have succeeded: nothing was written.")
    except Preempted as signal:
        say(f"{convert.out}: stopped by {signal} after {len(writer):,} of {total:,} episodes; go on with --append")
        raise SystemExit(signal.exit_code) from None
    except Exception:
        if not convert.append:
            writer.discard()
        raise
    words = f"; {len(skipped):,} skipped" if skipped else ""
    say(f"{convert.out}: {len(writer):,} of {total:,} episodes{words}")


def pending(
    convert: Convert, dataset: Dataset, done: int, say: Callable[[str], None], skip: Callable[[int], object]
) -> Iterator[Episode]:
    """The episodes that are still to be written, after the `done` ones that OUT holds already.

    Raises:
      UserError: those are not the first of this source.
    """
    before = read(convert.out) if done else ()
    foreign = f"{convert.out} holds other episodes than those of {convert.source}: --append goes on with a conversion "
    foreign += "of the same source, with the same options. Choose another OUT."
    passed = 0
    for episode in readable(dataset, say, skip=skip):
        if convert.only_successes and not episode.success:
            continue
        if passed < done:
            if not same(before[passed], episode):
                raise UserError(foreign)
            passed += 1
            continue
        yield episode
    if passed < done:
        raise UserError(foreign)


def same(a: Episode, b: Episode) -> bool:
    """Whether one is a copy of the other; pictures may have become video."""
    return a.task == b.task and np.array_equal(a.action, b.action) and np.array_equal(a.reward, b.reward)


if __name__ == "__main__":
    with clean_errors():
        main(parse_arguments(Convert, __doc__))
