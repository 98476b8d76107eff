"""Several episodes in one video, side by side, each with its name. Axes: T frames, C cells, H rows, W columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np

from mjx_policies.envs.rendering.mp4 import draw_text, write_video
from mjx_policies.envs.rendering.video import draw, scene_camera

SIZE = (180, 240)  # pixels of a cell
FPS = 10.0


class Cell(NamedTuple):
    """An episode to be drawn in a cell of the grid.

    Attributes:
      caption: lines of text.
      qpos: [T, nq].
      mocap_pos: [nmocap, 3] where goals and obstacles are.
    """

    caption: Sequence[str]
    qpos: np.ndarray
    mocap_pos: np.ndarray


def render_montage(model: mujoco.MjModel, cells: Sequence[Cell], columns: int, path: Path, control_dt: float) -> None:
    """Records episodes from the model's own camera, in real time; those that are over stand still.

    Args:
      model: of the scene.
      cells: row after row.
      columns: cells in a row; a last row may be shorter.
      path: of the mp4 file.
      control_dt: s, from one row of an episode to the next.

    Raises:
      ValueError: there is nothing to show.
    """
    if not cells or columns < 1:
        raise ValueError(f"{len(cells)} episodes in {columns} columns: a montage needs at least one of each")
    stride = max(1, round(1 / (FPS * control_dt)))
    fps = 1 / (stride * control_dt)
    frames = max(len(cell.qpos[::stride]) for cell in cells)
    qpos = np.stack([_lengthen(cell.qpos[::stride], frames) for cell in cells])  # [C, T, nq]
    mocap = np.stack([np.broadcast_to(cell.mocap_pos, (frames, *cell.mocap_pos.shape)) for cell in cells])
    pictures = draw(
        model,
        qpos.reshape(-1, model.nq),
        fps,
        SIZE,
        camera=scene_camera(model),
        mocap_pos=mocap.reshape(-1, model.nmocap, 3) if model.nmocap else None,
    ).reshape(len(cells), frames, *SIZE, 3)
    rows = -(-len(cells) // columns)
    grid = np.full((frames, rows * SIZE[0], columns * SIZE[1], 3), 255, np.uint8)
    for number, (cell, pixels) in enumerate(zip(cells, pictures, strict=True)):
        top, left = SIZE[0] * (number // columns), SIZE[1] * (number % columns)
        grid[:, top : top + SIZE[0], left : left + SIZE[1]] = [draw_text(each, cell.caption) for each in pixels]
    write_video(path, grid, fps)


def _lengthen(rows: np.ndarray, length: int) -> np.ndarray:  # [T, ...] -> [length, ...]
    return np.concatenate([rows, np.repeat(rows[-1:], length - len(rows), axis=0)])
