"""Every format under one name: what a path holds, and how to open or write it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from mjx_policies.data import lerobot, minari, robomimic
from mjx_policies.data.dataset import Dataset
from mjx_policies.data.episodes import Episode
from mjx_policies.data.paths import telling
from mjx_policies.errors import UserError

WritableFormat = Literal["lerobot", "robomimic"]
FORMATS: dict[str, ModuleType] = {"lerobot": lerobot, "robomimic": robomimic, "minari": minari}
"""Each module has `recognise` and `read`; those that can be written have `write` and `Writer`, an `EpisodeWriter`."""


class EpisodeWriter(Protocol):
    """The protocol of each format's `Writer`; each is also a context that closes it, unless it ends with an error."""

    def __len__(self) -> int:
        """The number of episodes in the dataset."""
        ...

    def add(self, episode: Episode) -> int:
        """Writes an episode and returns its number; it is safe when this returns."""
        ...

    def remove_last(self) -> None:
        """Takes the last episode back."""
        ...

    def close(self) -> None:
        """Finishes the dataset."""
        ...

    def discard(self) -> None:
        """Deletes a dataset that was begun."""
        ...


def recognise(path: Path) -> ModuleType | None:
    """The module of the format that a path holds; None if it is no dataset.

    Raises:
      UserError: it cannot be read.
    """
    with telling(path, "read"):
        return next((module for module in FORMATS.values() if module.recognise(path)), None)


def read(path: str | Path, *, fps: float | None = None) -> Dataset:
    """Opens a dataset of any format.

    Args:
      path: folder or file.
      fps: steps per second, for a format that does not say.

    Raises:
      UserError: there is none, it cannot be read, or it says another rate.
    """
    path = Path(path)
    module = recognise(path)
    with telling(path, "read"):
        if module is not None:
            return module.read(path, fps=fps)
        if not path.exists():
            raise UserError(f"{path} does not exist. Check the path.")
    raise UserError(f"{path} is no dataset of {', '.join(FORMATS)}. Name the folder, or the .hdf5 file.")


def kept(dataset: Dataset) -> dict[str, Any]:
    """The description of the robot in a dataset, as options of a `Writer` that is to say the same."""
    state = dataset.features.get("state")
    return {
        "robot": dataset.robot,
        "action_names": dataset.features["action"].names,
        "environment": state.environment if state is not None else (),
    }


def write(path: str | Path, episodes: Iterable[Episode], format: WritableFormat = "lerobot", **options: Any) -> None:
    """Writes episodes in a format; see its module for options and errors."""
    if format not in ("lerobot", "robomimic"):
        raise UserError(f"episodes can be written as lerobot or robomimic, not as {format!r}.")
    FORMATS[format].write(path, episodes, **options)
