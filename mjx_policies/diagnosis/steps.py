"""Demonstrations as one table of numbers. Axes: N steps of all episodes, D columns of the observation, A actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from mjx_policies.data.episodes import Episode
from mjx_policies.errors import UserError
from mjx_policies.spec import Table, table_slices

MAX_NUMBERS = 100_000_000  # that are held, 8 bytes each
MAX_PLACES = 20  # rows that a result names
WHERE = ("m", "rad", "1")  # units of what says where something is; rates, forces and memories say something else
GRID = 8  # a picture counts as the means of so many by so many parts of it


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """The steps of a set of episodes, in order.

    Attributes:
      observation: [N, D] float64, NaN and infinity as they come; pictures as means of their parts, 0 to 1.
      action: [N, A] float64.
      episode: [N] the place of each step's episode in the set.
      columns: D names such as `state[3]`.
      camera: [D] bool, whether a column is part of a picture.
      fps: steps per second of each episode.
      positions: numbers of the columns that say where something is, as far as a task's table tells.
      cut: whether there were more episodes than are held.
    """

    observation: np.ndarray
    action: np.ndarray
    episode: np.ndarray
    columns: tuple[str, ...]
    camera: np.ndarray
    fps: np.ndarray
    positions: tuple[int, ...] = ()
    cut: bool = False

    def __len__(self) -> int:
        return len(self.episode)

    def around(self, before: int, after: int) -> np.ndarray:  # -> [M]
        """Steps that have so many steps before and after them in their episode, all of them finite."""
        centre = np.arange(before, len(self) - after)
        same = self.episode[centre - before] == self.episode[centre + after]
        bad = ~(np.isfinite(self.observation).all(axis=1) & np.isfinite(self.action).all(axis=1))
        count = np.concatenate([[0], np.cumsum(bad)])
        return centre[same & (count[centre + after + 1] == count[centre - before])]

    def places(self, rows: np.ndarray) -> tuple[tuple[int, int], ...]:  # [K] -> (episode, step), at most MAX_PLACES
        """The episodes that rows belong to, and their steps in these."""
        of = self.episode[rows[:MAX_PLACES]]
        return tuple(zip(of.tolist(), (rows[:MAX_PLACES] - np.searchsorted(self.episode, of)).tolist(), strict=True))


def tabulate(episodes: Iterable[Episode], table: Table = ()) -> Steps:
    """The table of a set of episodes, each read once; of the first ones, if all are more than `MAX_NUMBERS`.

    Args:
      episodes: of one task.
      table: of their observation `state`, if it is known.

    Raises:
      UserError: there are no episodes, or they have different columns.
    """
    observations: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    rates: list[float] = []
    columns: tuple[str, ...] = ()
    camera = np.zeros(0, bool)
    held, cut = 0, False
    for number, episode in enumerate(episodes):
        if held >= MAX_NUMBERS:
            cut = True
            break
        parts = {name: _columns(values) for name, values in sorted(episode.observation.items())}
        names = tuple(f"{name}[{i}]" for name, part in parts.items() for i in range(part.shape[1]))
        if number and (names != columns or episode.action.shape[1] != actions[0].shape[1]):
            raise UserError(f"episode {number} has other observations or actions than episode 0: they must agree.")
        columns = names
        camera = np.concatenate(
            [np.full(part.shape[1], _is_picture(episode.observation[name])) for name, part in parts.items()]
        )
        observations.append(np.concatenate(list(parts.values()), axis=1))
        actions.append(episode.action.astype(np.float64))
        rates.append(episode.fps)
        held += observations[-1].size + actions[-1].size
    if not observations:
        raise UserError("there are no episodes to check.")
    return Steps(
        observation=np.concatenate(observations),
        action=np.concatenate(actions),
        episode=np.repeat(np.arange(len(actions)), [len(action) for action in actions]),
        columns=columns,
        camera=camera,
        fps=np.array(rates),
        positions=tuple(columns.index(name) for name in position_columns(table) if name in columns),
        cut=cut,
    )


def position_columns(table: Table) -> list[str]:
    """Names of the columns of `state` that say where things are."""
    slices = table_slices(table)
    chosen = [slices[term.name] for term in table if term.measured and term.unit in WHERE]
    return [f"state[{i}]" for each in chosen for i in range(each.start, each.stop)]


def _is_picture(values: np.ndarray) -> bool:
    return values.dtype == np.uint8 and values.ndim == 4


def _columns(values: np.ndarray) -> np.ndarray:  # [T, ...] -> [T, columns]
    if not _is_picture(values):
        return values.reshape(len(values), -1).astype(np.float64)
    rows, columns = (np.linspace(0, size, min(GRID, size) + 1).astype(int) for size in values.shape[1:3])
    sums = np.add.reduceat(values.astype(np.float32), rows[:-1], axis=1)
    sums = np.add.reduceat(sums, columns[:-1], axis=2)
    areas = np.diff(rows)[:, None] * np.diff(columns)[None, :]
    return (sums / (255.0 * areas[..., None])).reshape(len(values), -1).astype(np.float64)
