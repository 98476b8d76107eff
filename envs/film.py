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

    def frame(q: jax.Array) -> jax.Array:
        if not floating:
            return renderer.render_qpos(q, orbit(jnp.asarray([0.0, 0.0, 1.3]), 4.0, 90.0, -10.0)).rgb
        # Height is left out of the target, so that a bouncing robot is seen to bounce.
        target = jnp.asarray([q[0], q[1], model.qpos0[2] - 0.05])
        return renderer.render_qpos(q, orbit(target, distance, 130.0, -18.0)).rgb

    frames = np.asarray(jax.jit(lambda rows: jax.lax.map(frame, rows))(jnp.asarray(qpos, jnp.float32)))
    if captions is not None:
        frames = np.stack([draw_text(picture, lines) for picture, lines in zip(frames, captions, strict=True)])
    write_video(path, frames, fps)
