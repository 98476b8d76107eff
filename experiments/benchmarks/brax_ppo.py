"""Trains one of our tasks with the PPO of Brax, and writes metrics.csv like our own training does.

    python experiments/benchmarks/brax_ppo.py --folder runs/brax --task Go2JoystickFlat

The settings are those MuJoCo Playground publishes for its Go1JoystickFlatTerrain, except that 8192 environments, which
fill a GPU, become `num_envs`, and 32 minibatches as many as those fill: of 256 unrolls of 20 steps each, 4 passes
over each, as there. The task is the nominal robot: no noise, delay or randomization slows it down.

Tracking is measured as in our runner: the mean over all environments and steps of a rollout, while the policy explores.
It runs until it is stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from mjx_policies.envs.compat import to_brax
from mjx_policies.envs.physics import Backend
from mjx_policies.envs.registry import load
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.metrics import MetricsCsv
from mjx_policies.training.script import clean_errors

UNROLL = 20  # control steps
BATCH = 256  # unrolls in a minibatch


@dataclasses.dataclass(frozen=True)
class Brax:
    """A run of Brax's PPO."""

    folder: Path  # run folder
    task: str = "Go2JoystickFlat"  # task name, as listed in the README
    metric: str = "track_linear"  # metric of the task
    backend: Backend = "mjx"  # physics engine
    num_envs: int = 1024  # number of parallel environments
    seed: int = 0  # random seed of the run

    def __post_init__(self) -> None:
        if self.num_envs < 1:
            raise ValueError(f"num_envs is {self.num_envs}, it must be at least 1")


def device_put_replicated(tree, devices):
    """The function that Brax 0.14 calls and JAX 0.10 lacks: a leading axis with one copy for each of some devices."""
    mesh = jax.sharding.Mesh(devices, ("device",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("device"))
    return jax.tree.map(lambda leaf: jax.device_put(jnp.stack([leaf] * len(devices)), sharding), tree)


def main(config: Brax) -> None:
    # Before JAX starts, because Brax compiles by itself; see mjx_policies.compiler for why.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_experimental_ynn_fusion_type="
    task = load(config.task, config.backend, config.num_envs)
    environment = to_brax(task)  # says what to install if Brax is missing
    jax.device_put_replicated = device_put_replicated

    from brax.envs.base import Wrapper
    from brax.envs.wrappers import training
    from brax.training.agents.ppo import networks
    from brax.training.agents.ppo import train as ppo

    config.folder.mkdir(parents=True, exist_ok=True)
    table = MetricsCsv(config.folder / "metrics.csv")
    begin = time.monotonic()
    values: list[float] = []
    rollouts = 0

    def note(value) -> None:
        nonlocal rollouts
        values.append(float(value))
        if len(values) == UNROLL:
            rollouts += 1
            steps, seconds = rollouts * UNROLL * config.num_envs, time.monotonic() - begin
            mean = sum(values) / len(values)
            table.write({"step": steps, "seconds": round(seconds, 3), f"env/{config.metric}": mean})
            values.clear()

    class Reporter(Wrapper):
        """Tells the mean of the metric over the environments, in each step."""

        def step(self, state, action):
            state = self.env.step(state, action)
            jax.debug.callback(note, jnp.mean(state.metrics[config.metric]))
            return state

    num_minibatches = max(1, config.num_envs // BATCH)
    has_critic_view = "privileged_state" in environment.observation_size
    hidden = (512, 256, 128)
    ppo.train(
        environment=environment,
        wrap_env_fn=lambda env, **kwargs: Reporter(training.wrap(env, **kwargs)),
        num_timesteps=10**9,
        episode_length=round(task.spec.episode_seconds / task.spec.control_dt),
        num_envs=config.num_envs,
        unroll_length=UNROLL,
        batch_size=config.num_envs // num_minibatches,
        num_minibatches=num_minibatches,
        num_updates_per_batch=4,
        discounting=0.97,
        learning_rate=3e-4,
        entropy_cost=1e-2,
        max_grad_norm=1.0,
        reward_scaling=1.0,
        normalize_observations=True,
        network_factory=functools.partial(
            networks.make_ppo_networks,
            policy_hidden_layer_sizes=hidden,
            value_hidden_layer_sizes=hidden,
            value_obs_key="privileged_state" if has_critic_view else "state",
        ),
        num_eval_envs=1,
        run_evals=False,
        seed=config.seed,
    )


if __name__ == "__main__":
    with clean_errors(ValueError):
        main(parse_arguments(Brax, __doc__))
