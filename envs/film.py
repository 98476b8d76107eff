"""Moving pictures of a robot from its coordinates. Axes: T frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mjx_policies.envs.rendering import make_renderer, orbit
from mjx_policies.evaluation.video import draw_text, write_video

ELEVATION = 25.0  # degrees, of the camera above the robot: a stair of 0.15 m on 0.3 m would hide it from 18
SMOOTHING = 0.5  # s, over which the camera averages the height of the robot


def running_mean(height: np.ndarray, fps: float) -> np.ndarray:  # [T] -> [T]
    """Height averaged over `SMOOTHING` around each frame: it follows the ground, but a robot is seen to bounce."""
    half = round(SMOOTHING * fps / 2)
    padded = np.pad(height, half, mode="edge")
    return np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")


def film(
    model: mujoco.MjModel,
    qpos: np.ndarray,
    path: Path,
    fps: float,
    captions: Sequence[Sequence[str]] | None = None,
    size: tuple[int, int] = (360, 480),
    distance: float = 1.7,
) -> None:
    """Films a robot with a camera that follows it.

    Args:
      model: of the robot and its ground.
      qpos: [T, nq] coordinates, one row a frame.
      path: of the mp4 file.
      fps: frames per second.
      captions: lines of text for each frame.
      size: height and width in pixels.
      distance: m, from the camera to the robot.
    """
    renderer = make_renderer(model, *size)
    floating = model.njnt > 0 and model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE

    def frame(row: jax.Array) -> jax.Array:  # [nq + 1] coordinates, height the camera looks at
        q, height = row[:-1], row[-1]
        if not floating:
            return renderer.render_qpos(q, orbit(jnp.asarray([0.0, 0.0, 1.3]), 4.0, 90.0, -10.0)).rgb
        target = jnp.asarray([q[0], q[1], height - 0.05])
        return renderer.render_qpos(q, orbit(target, distance, 130.0, -ELEVATION)).rgb

    height = running_mean(qpos[:, 2], fps) if floating else np.zeros(len(qpos))
    rows = np.column_stack([qpos, height]).astype(np.float32)
    # XLA hardly shares one picture out among cores: two that draw a part of the film each are twice as fast.
    workers = len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" else 1
    parts = np.split(np.pad(rows, [(0, -len(rows) % workers), (0, 0)], mode="edge"), workers)
    draw = jax.jit(lambda part: jax.lax.map(frame, part)).lower(parts[0]).compile()
    with ThreadPoolExecutor(workers) as pool:
        frames = np.concatenate(list(pool.map(lambda part: np.asarray(draw(part)), parts)))[: len(rows)]
    if captions is not None:
        frames = np.stack([draw_text(picture, lines) for picture, lines in zip(frames, captions, strict=True)])
    write_video(path, frames, fps)
