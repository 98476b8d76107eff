"""What a dataset on disk looks like from outside, whatever its format. Axes: T steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from mjx_policies.data.episodes import Episode
from mjx_policies.training.errors import UserError

MAX_EPISODE_BYTES = 2**33  # of arrays, of one episode, once it is in memory


@dataclasses.dataclass(frozen=True)
class Feature:
    """What every step has: its numpy type, its shape without time, and names of the numbers of a vector."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()


class Dataset(Protocol):
    """Episodes on disk, read when asked for. Opening reads what describes them, not the episodes.

    Attributes:
      path: what was opened.
      format: name of the format, see `formats.py`.
      fps: steps per second.
      tasks: of its episodes, each once.
      lengths: steps of each episode.
      features: what an episode holds: `action`, and observations by name.
      left_out: names of what is in the files but in no episode, such as texts.
    """

    path: Path
    format: str
    fps: float
    tasks: tuple[str, ...]
    lengths: Sequence[int]
    features: dict[str, Feature]
    left_out: tuple[str, ...]

    def __len__(self) -> int:
        """Number of episodes."""
        ...

    def __getitem__(self, index: int) -> Episode:
        """Reads an episode.

        Raises:
          IndexError: there is none with this number, which also ends a `for` loop.
          UserError: its files are damaged, or hold what an episode may not.
        """
        ...


def check_memory(features: Iterable[Feature], steps: int, where: str) -> None:
    """That an episode fits into memory, before anything of that size is made."""
    row = sum(np.dtype(feature.dtype).itemsize * math.prod(feature.shape) for feature in features)
    if row * steps > MAX_EPISODE_BYTES:
        raise UserError(f"{where} would take {row * steps:,} bytes, more than the {MAX_EPISODE_BYTES:,} it may.")


def check_index(index: int, count: int) -> int:
    """The number of an episode, counted from the end where it is negative."""
    if not -count <= index < count:
        raise IndexError(f"there is no episode {index} among {count}")
    return index % count


def check_fps(fps: float | None, path: Path) -> float:
    """A rate that a file may lack."""
    if fps is None:
        raise UserError(f"{path} does not say how many steps a second has: pass it as fps.")
    return fps
