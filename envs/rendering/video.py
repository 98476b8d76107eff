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

from mjx_policies.envs.rendering.mp4 import draw_text, write_video
from mjx_policies.envs.rendering.renderer import make_renderer, orbit

SCENES = ("scene", "above")  # cameras of a model that has a place to look at it from
ELEVATION = 25.0  # degrees, of the camera above the robot: a stair of 0.15 m on 0.3 m would hide it from 18
SMOOTHING = 0.5  # s, over which the camera averages the height of the robot


def scene_camera(model: mujoco.MjModel) -> str | None:
    """The camera of a model that shows its scene, None where there is none."""
    cameras = [model.camera(i).name for i in range(model.ncam)]
    return next((name for name in SCENES if name in cameras), None)


def running_mean(height: np.ndarray, fps: float) -> np.ndarray:  # [T] -> [T]
    """Height averaged over `SMOOTHING` around each frame: it follows the ground, but a robot is seen to bounce."""
    half = round(SMOOTHING * fps / 2)
    padded = np.pad(height, half, mode="edge")
    return np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")


def draw(
    model: mujoco.MjModel,
    qpos: np.ndarray,
    fps: float,
    size: tuple[int, int] = (360, 480),
    distance: float = 1.7,
    camera: str | None = None,
    mocap_pos: np.ndarray | None = None,
) -> np.ndarray:  # [T, H, W, 3] uint8
    """Pictures of a robot from a camera that follows it, or from one of the model.

    Args:
      model: of the robot and its ground.
      qpos: [T, nq] coordinates, one row a frame.
      fps: frames per second.
      size: height and width in pixels.
      distance: m, from the camera to the robot.
      camera: of the model; without one the camera follows a robot that moves about and stands before any other.
      mocap_pos: [T, nmocap, 3] where goals and obstacles are; where the model puts them by default.
    """
    renderer = make_renderer(model, *size, camera=camera)
    floating = model.njnt > 0 and model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE

    def frame(row: jax.Array) -> jax.Array:  # [nq + 1 + 3 nmocap] coordinates, height the camera looks at, mocap bodies
        q, height = row[: model.nq], row[model.nq]
        view = None
        if camera is None and floating:
            view = orbit(jnp.asarray([q[0], q[1], height - 0.05]), distance, 130.0, -ELEVATION)
        elif camera is None:
            view = orbit(jnp.asarray([0.0, 0.0, 1.3]), 4.0, 90.0, -10.0)
        mocap = None if mocap_pos is None else row[model.nq + 1 :].reshape(-1, 3)
        return renderer.render_qpos(q, view, mocap_pos=mocap).rgb

    height = running_mean(qpos[:, 2], fps) if floating else np.zeros(len(qpos))
    mocap = np.zeros((len(qpos), 0)) if mocap_pos is None else mocap_pos.reshape(len(qpos), -1)
    rows = np.column_stack([qpos, height, mocap]).astype(np.float32)
    # XLA hardly shares one picture out among cores: two that draw a part of the video each are twice as fast.
    workers = len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" else 1
    parts = np.split(np.pad(rows, [(0, -len(rows) % workers), (0, 0)], mode="edge"), workers)
    trace = jax.jit(lambda part: jax.lax.map(frame, part)).lower(parts[0]).compile()
    with ThreadPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(lambda part: np.asarray(trace(part)), parts)))[: len(rows)]


def render_video(
    model: mujoco.MjModel,
    qpos: np.ndarray,
    path: Path,
    fps: float,
    captions: Sequence[Sequence[str]] | None = None,
    size: tuple[int, int] = (360, 480),
    distance: float = 1.7,
    camera: str | None = None,
    mocap_pos: np.ndarray | None = None,
) -> None:
    """Records a video of a robot; see `draw` for what is not listed.

    Args:
      model, qpos, fps, size, distance, camera, mocap_pos: see `draw`.
      path: of the mp4 file.
      captions: lines of text for each frame.
    """
    frames = draw(model, qpos, fps, size, distance, camera, mocap_pos)
    if captions is not None:
        frames = np.stack([draw_text(picture, lines) for picture, lines in zip(frames, captions, strict=True)])
    write_video(path, frames, fps)
