"""The interface of a dataset on disk, whatever its format. Axes: T steps."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mjx_policies.data.episodes import Episode
from mjx_policies.errors import UserError

EVEN, MAX_JITTER = 0.05, 0.5  # portions of a period: what is worth no word, and what a recorder without gaps may do
MAX_TOLD = 5  # skipped episodes that are told one by one: a damaged file has all of them
MAX_EPISODE_BYTES = 2**33  # of arrays, of one episode, once it is in memory


@dataclasses.dataclass(frozen=True)
class Feature:
    """The type and size of an array that every step has.

    Attributes:
      dtype: its numpy type.
      shape: without time.
      names: of the numbers of a vector.
      environment: which numbers of a vector are not of the robot but of what is around it: objects, goals.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    environment: tuple[int, ...] = ()


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
      robot: its name; empty if nobody says.
      notes: a sentence for whatever else an episode holds otherwise than the files do.
    """

    path: Path
    format: str
    fps: float
    tasks: tuple[str, ...]
    lengths: Sequence[int]
    features: dict[str, Feature]
    left_out: tuple[str, ...]
    robot: str
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """The number of episodes."""
        ...

    def __getitem__(self, index: int) -> Episode:
        """Reads an episode.

        Raises:
          IndexError: there is none with this number, which also ends a `for` loop.
          UserError: its files are damaged, or hold what an episode may not.
        """
        ...


def check_memory(features: Iterable[Feature], steps: int, where: str) -> None:
    """Checks that an episode fits into memory, before anything of that size is made."""
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
        raise UserError(f"{path} does not say how many steps a second has: pass it as fps, or convert it with --fps.")
    return fps


def note_integers(dtype: str) -> str:
    """The note on integers that are read as floats, for `Dataset.notes`."""
    return f"Actions are {dtype} in the files, and float32 in an episode."


def remarks(dataset: Dataset) -> list[str]:
    """Remarks on a dataset besides its numbers, in sentences."""
    found = list(dataset.notes)
    if dataset.left_out:
        found.append(f"Left out, because an episode holds plain numbers only: {', '.join(dataset.left_out)}.")
    return found


def readable(
    dataset: Dataset,
    say: Callable[[str], object],
    count: int | None = None,
    skip: Callable[[int], object] = lambda number: None,
) -> Iterator[Episode]:
    """The episodes of a dataset, or the first `count` of them, without those that cannot be read or have gaps in time.

    An episode has no time stamps, only a rate: one whose steps are further apart would become another motion.

    Args:
      dataset: whose episodes are read one by one.
      say: told of the first few that are skipped, and why, and how many followed.
      count: numbers of episodes to read; all by default.
      skip: is called with the number of each that is skipped.

    Raises:
      UserError: none can be read.
    """
    asked = len(dataset) if count is None else min(count, len(dataset))
    first: UserError | None = None
    found, skipped, worst = 0, 0, 0.0
    for number in range(asked):
        try:
            jitter = _jitter(dataset, number)
            if not jitter <= MAX_JITTER:
                raise UserError(
                    f"its time stamps are uneven, a step is off by {jitter:.1f} times the {1 / dataset.fps:g} s that "
                    "it should last. Resample it."
                )
            episode = dataset[number]
        except UserError as error:
            first, skipped = first or error, skipped + 1
            skip(number)
            if skipped <= MAX_TOLD:
                say(f"skipped episode {number}: {error}")
            continue
        found, worst = found + 1, max(worst, jitter)
        yield episode
    if skipped > MAX_TOLD:
        say(f"skipped {skipped - MAX_TOLD:,} more of {asked:,} episodes, which cannot be read either")
    if worst > EVEN:
        say(f"Time stamps are up to {1e3 * worst / dataset.fps:.0f} ms uneven, and taken as even.")
    if first is not None and not found:
        raise UserError(f"none of {asked} episodes can be read; the first: {first}") from None


def _jitter(dataset: Dataset, number: int) -> float:
    """The largest deviation of an episode's steps from its rate, as a portion of a period."""
    times = getattr(dataset, "times", None)
    try:
        stamps = None if times is None else times(number)
    except UserError:  # there are none
        return 0.0
    gaps = np.zeros(0) if stamps is None else np.diff(stamps) * dataset.fps
    return float(np.abs(gaps - 1).max(initial=0.0))


@dataclasses.dataclass
class Described:
    """The description of an episode that opening its file gives, see `Alike`."""

    length: int = 0
    features: dict[str, Feature] = dataclasses.field(default_factory=dict)
    fps: float | None = None
    task: str = ""
    left_out: Sequence[str] = ()


class Alike:
    """The properties that most episodes of a file agree on, so that an odd one among them is told, and refused alone.

    Use `episode` for each in turn, then `settle_fps` where files say rates; `features` are those of most episodes.
    """

    def __init__(self) -> None:
        self._found: list[Described] = []
        self._names: list[str] = []
        self._faults: dict[int, UserError] = {}
        self.fps: float | None = None

    @contextlib.contextmanager
    def episode(self, name: str) -> Iterator[Described]:
        """Adds a description, to be filled in; a `UserError` in the block is kept for `check`."""
        found = Described()
        try:
            yield found
        except UserError as error:
            self._faults[len(self._found)] = error
            found = Described()
        self._names.append(name)
        self._found.append(found)

    @property
    def lengths(self) -> list[int]:
        """The length of each episode; 0 for one that cannot be read."""
        return [found.length for found in self._found]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of the episodes, each once."""
        intact = [found for number, found in enumerate(self._found) if number not in self._faults]
        return tuple(dict.fromkeys(found.task for found in intact))

    @functools.cached_property
    def features(self) -> dict[str, Feature]:
        """The features of most episodes.

        Raises:
          UserError: none of them can be read.
        """
        if self._faults and len(self._faults) == len(self._found):
            first = self._faults[0]
            raise type(first)(f"none of {len(self._found)} episodes can be read; the first: {first}")
        return dict(self._most(lambda found: tuple(sorted(found.features.items()))) or ())

    def settle_fps(self, fps: float | None, path: Path) -> float:
        """The rate of most episodes, or the given one of those that have it or do not say.

        Raises:
          UserError: no episode has it, or nobody says.
        """
        for found in self._found:
            found.fps = fps if found.fps is None else found.fps
        most = self._most(lambda found: found.fps)
        if fps is not None and most is not None and all(found.fps != fps for found in self._found):
            raise UserError(f"{path} says that it has {most:g} steps a second, not {fps:g}: leave out fps.")
        self.fps = check_fps(most if fps is None else fps, path)
        return self.fps

    @property
    def left_out(self) -> tuple[str, ...]:
        """The observations that were left out of any episode."""
        return tuple(dict.fromkeys(name for found in self._found for name in found.left_out))

    def _most(self, key: Callable[[Described], Any]) -> Any:
        counts = collections.Counter(key(found) for i, found in enumerate(self._found) if i not in self._faults)
        return counts.most_common(1)[0][0] if counts else None

    def check(self, number: int, path: Path) -> None:
        """Checks that an episode is like most others.

        Raises:
          UserError: it is not, or could not be described.
        """
        if number in self._faults:
            raise type(self._faults[number])(f"{path}: {self._faults[number]}")
        found, name = self._found[number], self._names[number]
        if found.fps != self.fps:
            own = "says no rate" if found.fps is None else f"has {found.fps:g} steps a second"
            raise UserError(f"{path}: {name} {own}, others {self.fps:g}: read those of each rate apart, with its fps.")
        for key in sorted(found.features.keys() | self.features.keys()):
            own, other = (
                "missing" if each is None else f"{each.dtype} {list(each.shape)}"
                for each in (found.features.get(key), self.features.get(key))
            )
            if own != other:
                raise UserError(f"{path}: {key} is {own} in {name}, and {other} in most others.")
