"""A training job of a few leaves, as a script that tests start, signal and kill: `toy_run.py RUN_DIR --steps 100`."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.training.config import may_change
from mjx_policies.training.loop import Job, Outcome, Schedule, train
from mjx_policies.training.preemption import Preemption, exit_code
from mjx_policies.training.run_folder import RunFolder
from mjx_policies.training.script import clean_errors

STEPS_PER_ITERATION = 10
SCHEDULE = Schedule(total_steps=200, eval_every=5, checkpoint_seconds=0.0, tensorboard=False)


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    learning_rate: float = 0.05
    optimizer: str = "momentum"  # or adam, from optax, which is slow to import
    nan_at: int = -1  # iteration whose loss is NaN
    pause: float = may_change(0.0)  # seconds that an iteration takes
    schedule: Schedule = dataclasses.field(default_factory=lambda: SCHEDULE)


class Counters(NamedTuple):
    iteration: jax.Array
    flag: jax.Array


@struct.dataclass
class ToyState:
    params: dict[str, jax.Array]
    target: dict[str, jax.Array]  # the same buffers as the parameters at first, as in SAC
    opt_state: object
    key: jax.Array
    counters: Counters
    empty: jax.Array


def toy_job(config: ToyConfig) -> Job[ToyState]:
    def init() -> ToyState:
        params = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2, jnp.bfloat16)}
        counters = Counters(iteration=0, flag=False)  # Python numbers are weakly typed: the loop has to mend that
        opt_state = optimizer_init(params)
        return ToyState(params, params, opt_state, jax.random.key(7), counters, jnp.zeros((0, 4)))

    def step(state: ToyState):
        key, key_noise = jax.random.split(state.key)
        noise = jax.random.uniform(key_noise, (3, 2))  # compiles faster than a normal

        def loss_of(params):
            return jnp.mean((params["w"] + params["b"].astype(jnp.float32) - 1.0) ** 2 * (1 + 0.1 * noise))

        loss, gradient = jax.value_and_grad(loss_of)(state.params)
        params, opt_state = optimizer_update(state.params, gradient, state.opt_state)
        counters = Counters(state.counters.iteration + 1, ~state.counters.flag)
        loss = jnp.where(state.counters.iteration == config.nan_at, jnp.nan, loss)
        if config.pause:
            loss = jax.pure_callback(slowly, jax.ShapeDtypeStruct((), jnp.float32), loss)
        metrics = {"loss": loss, "reward": -loss, "return": jnp.where(counters.flag, -loss, jnp.nan)}
        return ToyState(params, state.params, opt_state, key, counters, state.empty), metrics

    def slowly(loss):
        time.sleep(config.pause)
        return loss

    def evaluate(state: ToyState) -> dict[str, float]:
        return {"distance": float(jnp.abs(state.params["w"] - 1).mean())}

    optimizer_init, optimizer_update = OPTIMIZERS[config.optimizer](config.learning_rate)
    return Job(init, step, STEPS_PER_ITERATION, evaluate, may_be_nan=("return",))


def momentum(learning_rate: float) -> tuple[Callable, Callable]:
    def update(params, gradient, velocity):
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        return jax.tree.map(lambda p, v: p - learning_rate * v, params, velocity), velocity

    return lambda params: jax.tree.map(jnp.zeros_like, params), update


def adam(learning_rate: float) -> tuple[Callable, Callable]:
    import optax

    transform = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))

    def update(params, gradient, state):
        updates, state = transform.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return transform.init, update


OPTIMIZERS = {"momentum": momentum, "adam": adam}


def train_toy(path, config: ToyConfig, resume: bool = False, **options) -> Outcome[ToyState]:
    with RunFolder.start(path, config, resume) as run:
        return train(toy_job(config), run, config.schedule, **options)


@clean_errors()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--nan-at", type=int, default=-1)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    schedule = dataclasses.replace(SCHEDULE, total_steps=given.steps)
    config = ToyConfig(nan_at=given.nan_at, pause=given.pause, schedule=schedule)
    with Preemption() as preemption:
        status = train_toy(given.run_dir, config, given.resume, preemption=preemption).status
    print(status)
    if status == "preempted":
        raise SystemExit(exit_code(preemption.requested))


if __name__ == "__main__":
    main()
