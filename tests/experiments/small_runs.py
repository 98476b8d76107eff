"""Run folders of policies so small that they train in seconds, with nothing or one thing wrong in them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from rich.console import Console

from mjx_policies.actor import Scales, Units, actor
from mjx_policies.agents.bc import BCHyper, bc
from mjx_policies.agents.ppo_config import PPOHyper
from mjx_policies.chunking import receding_horizon
from mjx_policies.compiler import compiler_options
from mjx_policies.data.statistics import min_max, standard, statistics_of
from mjx_policies.data.store import in_memory
from mjx_policies.data.windows import WindowConfig, Windows
from mjx_policies.experiments.runs import ppo as ppo_run
from mjx_policies.heads.deterministic import deterministic_head
from mjx_policies.training.loop import Job, Schedule, train
from mjx_policies.training.run_folder import RunFolder

BATCH, UPDATES, ROWS = 64, 10, 40  # gradient steps in a row of the table, and rows
HORIZON = 4


class Encoder(nn.Module):
    """Two layers; `dead` lets the second one's units start, and so stay, where a ReLU is flat."""

    dead: bool = False

    @nn.compact
    def __call__(self, observation):  # {name: [O, D]} -> [E]
        x = jnp.concatenate([observation[name].ravel() for name in sorted(observation)])
        x = nn.relu(nn.Dense(64)(x))
        bias = nn.initializers.constant(-100.0 if self.dead else 0.0)
        return nn.relu(nn.Dense(64, bias_init=bias)(x))


@dataclasses.dataclass(frozen=True)
class Config:
    """The configuration in a run folder."""

    hyper: BCHyper


@struct.dataclass
class BCState:
    learner: object
    key: jax.Array


def bc_runs(episodes) -> Callable[..., None]:
    """Builds `train_bc(folder, learning_rate, dead)`: behaviour cloning, compiled once for all of its runs.

    The rate is the best of a sweep by factors of three.
    """
    store = in_memory(episodes, ["state"])
    windows = Windows(store, WindowConfig(observations=1, horizon=HORIZON))
    table = jax.tree.map(jnp.asarray, windows.take(np.arange(len(windows))))
    found = statistics_of(episodes)
    scales = Scales({"state": standard(found["state"])}, min_max(found["action"]))
    size = store.arrays["action"].shape[1]
    shape = (HORIZON, size)

    def learner(dead):
        network = actor(Encoder(dead), deterministic_head(nn.Dense(HORIZON * size), shape), units=Units(scales))
        return bc(
            network, lambda params: receding_horizon(lambda key, seen: network.mode(params, seen), shape, HORIZON)
        )

    learners = [learner(dead) for dead in (False, True)]

    def update(state, _):
        key, key_rows, key_loss = jax.random.split(state.key, 3)
        rows = jax.random.randint(key_rows, (BATCH,), 0, len(windows))
        learned, info = learners[0].update(state.learner, key_loss, jax.tree.map(lambda x: x[rows], table))
        return BCState(learned, key), info

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def step(state):
        state, info = jax.lax.scan(update, state, None, UPDATES)
        return state, jax.tree.map(jnp.mean, info)

    def train_bc(folder, learning_rate: float = 1e-2, dead: bool = False) -> None:
        hyper = BCHyper(learning_rate=learning_rate, warmup_steps=20.0, total_steps=float(UPDATES * ROWS))
        key_init, key = jax.random.split(jax.random.key(0))
        first = {"state": table.observation["state"][0]}
        run(folder, Config(hyper), BCState(learners[dead].init(key_init, first, hyper), key), step, UPDATES)

    return train_bc


def reinforcing() -> Callable[..., None]:
    """Builds `reinforce(folder, learning_rate)`: PPO of a pendulum at a constant rate, compiled once."""
    config = ppo_run.PPORun(
        task="Pendulum",
        backend="cpu",
        num_envs=64,
        rollout_length=8,
        policy_layers=(16,),
        critic_layers=(16,),
        hyper=PPOHyper(desired_kl=0.0, final_desired_kl=0.0, max_learning_rate=10.0),
    )
    runner = ppo_run.build(config).runner
    init, step = (jax.jit(function, compiler_options=compiler_options()) for function in (runner.init, runner.step))

    def reinforce(folder, learning_rate: float = 1e-2) -> None:
        asked = dataclasses.replace(config, hyper=dataclasses.replace(config.hyper, learning_rate=learning_rate))
        run(folder, asked, init(jax.random.key(0), asked.hyper), step, runner.steps_per_iteration)

    return reinforce


def run(folder, config, start, step: Callable, size: int) -> None:
    """Trains as the scripts do."""
    job = Job(init=lambda: start, step=step, steps_per_iteration=size, watch=lambda state: state.learner, jit=False)
    # Soon and then rarely: two checkpoints at least, of the first iteration and of the last.
    schedule = Schedule(total_steps=size * ROWS, checkpoint_seconds=1e-3, tensorboard=False)
    with RunFolder.create(folder, config) as opened:
        train(job, opened, schedule, console=Console(quiet=True))
