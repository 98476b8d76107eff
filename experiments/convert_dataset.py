"""Writes a dataset in another format: python experiments/convert_dataset.py demos demos.hdf5

Reads LeRobot, robomimic and Minari, writes LeRobot or, where OUT ends in .hdf5, robomimic. A conversion that was
stopped goes on with --append.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import tyro
from rich.progress import track

from mjx_policies.data import lerobot, robomimic
from mjx_policies.data.formats import read
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.progress import open_console


@dataclasses.dataclass(frozen=True)
class Convert:
    """Writes a dataset in another format."""

    source: tyro.conf.Positional[Path]  # folder or file to read
    out: tyro.conf.Positional[Path]  # folder for LeRobot, file that ends in .hdf5 for robomimic
    fps: float | None = None  # steps per second, where the source does not say
    videos: bool = False  # keep RGB pictures as video in LeRobot: small, and lossy
    only_successes: bool = False  # leave out episodes that are not known to have succeeded
    append: bool = False  # go on with a conversion of the same source that was stopped


def main(convert: Convert) -> None:
    """Reads an episode, writes it, and so on."""
    dataset = read(convert.source, fps=convert.fps)
    to_robomimic = convert.out.suffix in (".hdf5", ".h5")
    if convert.append and convert.only_successes:
        raise UserError(
            "--append counts episodes, so it cannot go on with --only-successes: delete OUT and begin anew."
        )
    if to_robomimic and convert.videos:
        raise UserError("robomimic has no videos: leave out --videos, or choose a folder for LeRobot.")
    if convert.out.resolve() == convert.source.resolve():
        raise UserError(f"{convert.out} is what is to be converted: choose another OUT.")
    console = open_console()
    writer: Any
    if to_robomimic:
        writer = robomimic.Writer(convert.out, append=convert.append)
    else:
        writer = lerobot.Writer(
            convert.out,
            append=convert.append,
            videos=convert.videos,
            action_names=dataset.features["action"].names,
        )
    with writer:
        for index in track(range(len(writer), len(dataset)), "converting", console=console):
            episode = dataset[index]
            if episode.success or not convert.only_successes:
                writer.add(episode)
        written = len(writer)
    if not written:
        raise UserError(f"{convert.source} has no episode that is known to have succeeded: nothing was written.")
    console.print(f"{convert.out}: {written:,} of {len(dataset):,} episodes", highlight=False)


if __name__ == "__main__":
    with clean_errors():
        main(tyro.cli(Convert, description=__doc__))
