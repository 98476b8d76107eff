"""Draws the README's pictures into experiments/pictures: python experiments/readme_pictures.py

`tasks.png` shows the start of an episode of every task, `architecture.png` how the parts fit together. With the videos
of finished runs, `--walk runs/walk/episode.mp4 --pick runs/pick/episode.mp4`, these become `walk.webp` and `pick.webp`.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import dataclasses
from pathlib import Path

import imageio.v3
import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from rich.progress import track

from mjx_policies.envs.registry import TASKS, load, scene
from mjx_policies.envs.rendering.mp4 import draw_text
from mjx_policies.envs.rendering.video import draw, scene_camera
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.script import clean_errors

FOLDER = Path(__file__).parent / "pictures"
CELL = (180, 240)  # pixels of a task in the gallery, height and width
COLUMNS = 4
SAMPLES = 2  # drawn so many times larger, then averaged: smooth edges
DISTANCE = {"Go2JoystickRough": 6.0}  # m, or its ground would not be seen
FPS = 12.5  # of the animations, half that of the videos
SECONDS = 4.0
WIDTH = 360  # pixels of an animation


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Draws the pictures of the README."""

    walk: Path | None = None  # video of a quadruped, for walk.webp
    pick: Path | None = None  # video of an arm, for pick.webp


def main(pictures: Pictures) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, video in vars(pictures).items():
        if video is not None:
            animate(video, FOLDER / f"{name}.webp")
    draw_architecture(FOLDER / "architecture.png")
    cells = [draw_task(name) for name in track(TASKS, "drawing tasks")]
    rows = [np.concatenate(cells[i : i + COLUMNS], axis=1) for i in range(0, len(cells), COLUMNS)]
    palette = Image.Quantize.FASTOCTREE  # others lose colours of a few pixels, such as those of goals and cubes
    Image.fromarray(np.concatenate(rows)).quantize(256, palette).save(FOLDER / "tasks.png", optimize=True)


def animate(video: Path, path: Path) -> None:
    """A small animation that plays where a README is read."""
    fps = imageio.v3.immeta(video)["fps"]
    stride = max(1, round(fps / FPS))
    frames = [Image.fromarray(frame) for frame in imageio.v3.imread(video)[: round(SECONDS * fps) : stride]]
    size = (WIDTH, round(WIDTH * frames[0].height / frames[0].width))
    first, *rest = [frame.resize(size, Image.Resampling.LANCZOS) for frame in frames]
    milliseconds = round(1000 * stride / fps)
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, quality=60, method=6)


def draw_task(name: str) -> np.ndarray:  # [H, W, 3] uint8
    """The first state of an episode, with the name of the task."""
    task = load(name, num_envs=1)
    data, model = task.data(task.reset(jax.random.key(0), {})[0]), scene(name)
    mocap = np.asarray(data.mocap_pos)[None] if model.nmocap else None
    size = (CELL[0] * SAMPLES, CELL[1] * SAMPLES)
    distance, camera = DISTANCE.get(name, 1.7), scene_camera(model)
    (picture,) = draw(model, np.asarray(data.qpos)[None], 25.0, size, distance, camera, mocap)
    small = Image.fromarray(picture).resize(CELL[::-1], Image.Resampling.LANCZOS)
    return draw_text(np.asarray(small), [name], size=12)


STAGES = (  # title, what it does, where it stands
    ("task", "reward, observation\nand action tables", "envs/"),
    ("domain\nrandomization", "dynamics, delays,\nnoise, pushes", "randomization/"),
    ("vectorize", "time limits, resets,\nquarantine", "envs/vectorize.py"),
    ("learner", "PPO, BC: head,\nencoder, critic", "agents/"),
    ("export", "one ONNX file\nwith its contract", "mjx_policies/export/"),
    ("sim-to-sim gate", "robots it never met,\nplain MuJoCo", "mjx_policies/deploy/"),
    ("controller", "numpy, onnxruntime,\nsafety checks", "mjx_policies/deploy/"),
)
PHYSICS = "physics: MuJoCo C on all cores  |  MJX on any XLA device  |  MJX-Warp on NVIDIA"
GREY = "#54616e"
DATA = "demonstrations: LeRobot v3, robomimic, Minari"


def draw_architecture(path: Path) -> None:
    """The way of a policy, from left to right, and what feeds it."""
    matplotlib.use("agg")
    figure = Figure(figsize=(12.0, 3.0), layout="constrained")
    axes = figure.add_subplot(xlim=(0, len(STAGES)), ylim=(-1.05, 1.25))
    axes.axis("off")

    def box(x: float, y: float, width: float, height: float, colour: str) -> None:
        shape = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.08", fc=colour, ec=GREY)
        axes.add_patch(shape)

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0})

    for i, (title, about, place) in enumerate(STAGES):
        box(i + 0.06, 0.0, 0.88, 1.1, "#e8f1fb" if i < 4 else "#e9f6ec")
        axes.text(i + 0.5, 0.88, title, ha="center", va="center", weight="bold", size=10)
        axes.text(i + 0.5, 0.5, about, ha="center", va="center", size=8.5)
        axes.text(i + 0.5, 0.13, place, ha="center", va="center", size=7.5, family="monospace", color=GREY)
        if i:
            arrow((i - 0.06, 0.55), (i + 0.06, 0.55))
    for left, width, words, target in ((0.06, 2.88, PHYSICS, 0.5), (3.06, 1.88, DATA, 3.5)):
        box(left, -0.85, width, 0.42, "#fdf3e1")
        axes.text(left + width / 2, -0.64, words, ha="center", va="center", size=7.5)
        arrow((target, -0.43), (target, 0.0))
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    with clean_errors(OSError):
        main(parse_arguments(Pictures, __doc__))
