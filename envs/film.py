"""Moving pictures of a robot from its coordinates. Axes: T frames."""

from __future__ import annotations

from collections.abc import Sequence
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

    def frame(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        q, height = row
        if not floating:
            return renderer.render_qpos(q, orbit(jnp.asarray([0.0, 0.0, 1.3]), 4.0, 90.0, -10.0)).rgb
        target = jnp.asarray([q[0], q[1], height - 0.05])
        return renderer.render_qpos(q, orbit(target, distance, 130.0, -ELEVATION)).rgb

    height = running_mean(qpos[:, 2], fps) if floating else np.zeros(len(qpos))
    rows = (jnp.asarray(qpos, jnp.float32), jnp.asarray(height, jnp.float32))
    frames = np.asarray(jax.jit(lambda rows: jax.lax.map(frame, rows))(rows))
    if captions is not None:
        frames = np.stack([draw_text(picture, lines) for picture, lines in zip(frames, captions, strict=True)])
    write_video(path, frames, fps)
