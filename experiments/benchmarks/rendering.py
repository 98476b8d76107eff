"""Images per second of the ray caster on this device, for a batch of Go2 at 84 by 84 pixels.

    python experiments/benchmarks/rendering.py
    python experiments/benchmarks/rendering.py --terrain rough --at-once 2

Every robot stands in another pose and is seen by a camera that follows it.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.envs.quadruped import scenes
from mjx_policies.envs.rendering.renderer import make_renderer, orbit
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.script import clean_errors


@dataclasses.dataclass(frozen=True)
class Config:
    """Measures the ray tracer on a batch of Go2."""

    batch: int = 64  # number of pictures in one call
    at_once: int = 16  # number of pictures in one vmap; lax.map goes over the rest
    size: int = 84  # height and width (pixels)
    samples: int = 1  # samples along each side of a pixel
    shadows: bool = True  # cast shadows
    terrain: Literal["flat", "rough"] = "flat"  # ground
    repeats: int = 10  # number of timed calls


def main(config: Config) -> None:
    terrain = scenes.make_terrain()
    model = scenes.flat() if config.terrain == "flat" else scenes.rough(terrain)
    renderer = make_renderer(model, config.size, config.size, samples=config.samples, shadows=config.shadows)
    rng = np.random.default_rng(0)
    qpos = np.tile(model.key("home").qpos, (config.batch, 1))
    qpos[:, 7:] += rng.normal(size=(config.batch, model.nq - 7), scale=0.2)
    if config.terrain == "rough":
        starts = np.reshape(terrain.origins, (-1, 3))
        qpos[:, :3] += starts[rng.integers(len(starts), size=config.batch)]
    azimuth = jnp.asarray(rng.uniform(0, 360, config.batch), jnp.float32)

    @jax.jit
    def draw(qpos, azimuth, appearance):
        def picture(robot):
            qpos, azimuth = robot
            return renderer.render_qpos(qpos, orbit(qpos[:3], 1.5, azimuth, -20.0), appearance).rgb

        return jax.lax.map(picture, (qpos, azimuth), batch_size=config.at_once)

    arguments = (jnp.asarray(qpos, jnp.float32), azimuth, renderer.appearance)
    start = time.perf_counter()
    draw(*arguments).block_until_ready()
    first = time.perf_counter() - start
    seconds = []
    for _ in range(config.repeats):
        start = time.perf_counter()
        draw(*arguments).block_until_ready()
        seconds.append(time.perf_counter() - start)
    rates = config.batch / np.array(seconds)
    device = jax.devices()[0]
    visible = int(np.isin(model.geom_group, (0, 1, 2)).sum())
    print(f"{config}\n{visible} geoms on {jax.device_count()} x {device.device_kind}, jax {jax.__version__}")
    print(f"first call {first:.1f} s, then {np.median(rates):.0f} images/s ({rates.min():.0f} to {rates.max():.0f})")


if __name__ == "__main__":
    with clean_errors():
        main(parse_arguments(Config, __doc__))
