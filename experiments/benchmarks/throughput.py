"""Steps per second on this device, from the physics alone to whole training iterations, and where their time goes.

    python experiments/benchmarks/throughput.py
    python experiments/benchmarks/throughput.py --backends cpu mjx --mjx-envs 128 --json throughput.json

Every layer starts from the same robots, in the poses that one iteration has brought them to, with the actions that the
policy takes from there. The measure of all is MuJoCo's C batch without JAX around it, with the same model, controls,
substeps and randomized robots. Axes: T steps of a rollout, B robots, S substeps, A actions.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco.batch
import numpy as np
from measuring import Call, CallTimes, alternate, report_file, write_report
from rich.table import Table

from mjx_policies.agents.on_policy import OnPolicyState
from mjx_policies.agents.rollout import Acting, Transition, collect
from mjx_policies.compiler import compiler_options
from mjx_policies.envs.command import innermost
from mjx_policies.envs.physics import Backend, resolve_backend
from mjx_policies.envs.physics.cpu import STATE_FIELDS
from mjx_policies.experiments.runs import ppo as ppo_run
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.config import at_least
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors
from mjx_policies.training.trees import own_buffers, strong
from mjx_policies.types import actuator_targets


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Measures steps per second."""

    task: str = "Go2JoystickFlat"  # task name, as listed in the README
    backends: tuple[Backend, ...] = ("auto",)  # physics engines to measure
    num_envs: int = 0  # number of parallel environments; 0: the default of training
    mjx_envs: int = 128  # number of parallel environments on the mjx backend where JAX has only a CPU
    rollout_length: int = 24  # control steps in one measurement
    repeats: int = 9  # number of measurements of each layer; medians are reported
    quick: bool = False  # smoke test: few environments and small networks
    json: str = ""  # JSON file for all times measured
    overwrite: bool = False  # replace the file that --json names

    def __post_init__(self) -> None:
        at_least(self, rollout_length=1, repeats=1, mjx_envs=1)

    def config(self, backend: Backend) -> ppo_run.PPORun:
        """The training that is measured: full domain randomization from the start, as they are for most of a run."""
        few = backend == "mjx" and jax.default_backend() == "cpu"
        num_envs = self.num_envs or (self.mjx_envs if few else ppo_run.default_num_envs())
        config = ppo_run.PPORun(task=self.task, backend=backend, num_envs=num_envs, curriculum_threshold=0.0)
        if not self.quick:
            return dataclasses.replace(config, rollout_length=self.rollout_length)
        return dataclasses.replace(config, num_envs=16, rollout_length=4, policy_layers=(16,), critic_layers=(16,))


LAYERS = ("C batch", "physics", "environment", "training")


def main(bench: Throughput) -> None:
    console, report = open_console(), report_file(bench)
    if bench.quick:
        jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
    calls: dict[str, Call] = {}
    configs: dict[str, ppo_run.PPORun] = {}
    substeps = 1
    for backend in dict.fromkeys(map(resolve_backend, bench.backends)):
        if obstacle := unavailable(backend):
            console.print(f"skipped {backend}: {obstacle}")
            continue
        configs[backend] = bench.config(backend)
        with console.status(f"{backend}: one iteration of training"):
            parts, step, state, rollout = prepare(configs[backend])
        substeps = parts.envs.env.physics.substeps
        if len(configs) == 1:
            calls["C batch"] = Call(*c_batch(parts, state, rollout))
        calls |= {f"{backend} {name}": call for name, call in layers(parts, step, state, rollout).items()}
    if not configs:
        return
    timings = alternate(calls, 2 if bench.quick else bench.repeats, console)

    first = next(iter(configs))
    rates = {name: env_steps(configs, name, first) / timing.median for name, timing in timings.items()}
    iterations = {backend: profile(backend, timings, backend == first == "cpu") for backend in configs}
    chosen = [name for name in timings if name == "C batch" or name.split(" ", 1)[1] in LAYERS]
    table = Table(title=f"{bench.task} on {jax.device_count()} x {jax.devices()[0].device_kind}", title_justify="left")
    for title in ("", "environments", "env steps/s", "substeps/s", "of C batch"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    for name in chosen:
        environments = configs[first if name == "C batch" else name.split()[0]].num_envs
        rate, share = rates[name], rates[name] / rates["C batch"]
        table.add_row(name, f"{environments}", f"{rate:,.0f}", f"{rate * substeps:,.0f}", f"{share:.1%}")
    for backend, found in iterations.items():
        table.add_section()
        table.add_row(f"{backend}: one iteration", "", "", "ms", "of all")
        for name, seconds in found.items():
            share = seconds / timings[f"{backend} training"].median
            table.add_row(f"  {name}", "", "", f"{1e3 * seconds:.1f}", f"{share:.1%}")
    console.print(table)
    found = {
        "substeps": substeps,
        "env_steps_per_call": {name: env_steps(configs, name, first) for name in timings},
        "timings": {name: dataclasses.asdict(timing) for name, timing in timings.items()},
        "env_steps_per_second": {name: rates[name] for name in chosen},
        "iteration": iterations,
    }
    write_report(report, bench, found)


def unavailable(backend: Backend) -> str:
    """The reason why a backend cannot be measured here; empty if it can."""
    if backend == "cpu" and jax.default_backend() != "cpu":
        return f"JAX runs on {jax.default_backend()}; set JAX_PLATFORMS=cpu to measure it"
    if backend == "warp" and importlib.util.find_spec("warp") is None:
        return "warp-lang is not installed (pip install 'mjx-policies[warp]')"
    if backend == "warp" and jax.default_backend() != "gpu":
        return "it needs an NVIDIA GPU that JAX sees"
    return ""


def env_steps(configs: dict[str, ppo_run.PPORun], name: str, first: str) -> int:
    """Environment steps in one call."""
    config = configs[first if name == "C batch" else name.split()[0]]
    return config.num_envs * config.rollout_length


def prepare(config: ppo_run.PPORun) -> tuple[ppo_run.Built, Callable, OnPolicyState, Transition]:
    """A run, its compiled iteration, its state after one, and the rollout [T, B] that its policy takes from there."""
    parts = ppo_run.build(config)
    learner, envs = parts.learner, parts.envs

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=compiler_options())
    def step(state: OnPolicyState):
        state, info = parts.runner.step(state)
        return jax.tree.map(strong, state), info  # as the training loop does, so that it compiles once

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def take(state: OnPolicyState) -> Transition:
        acting = Acting(state.envs, state.memory)
        return collect(learner.act(state.learner), envs, acting, state.key, config.rollout_length)[1]

    init = jax.jit(parts.runner.init, compiler_options=compiler_options(runs_once=True))
    state, _ = step(own_buffers(init(jax.random.key(config.seed), config.hyper)))
    return parts, step, state, take(state)


def layers(parts: ppo_run.Built, step: Callable, state: OnPolicyState, rollout: Transition) -> dict[str, Call]:
    """The layers that an iteration is made of, each compiled by itself."""
    learner, envs, env = parts.learner, parts.envs, state.envs.env
    physics = envs.env.physics
    dynamics = innermost(state.envs.envs).dynamics
    ctrl = controls(parts, rollout)

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def step_physics(data, dynamics, ctrl):
        def advance(data, ctrl):
            return jax.vmap(physics.step)(data, ctrl, dynamics), None

        return jax.lax.scan(advance, data, ctrl)[0]

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def act(learner_state, memory, key, obs):
        policy = learner.act(learner_state)

        def advance(carry, inputs):
            (memory, key), (clock, obs) = carry, inputs
            key, key_act = jax.random.split(key)
            keys = jax.random.split(key_act, envs.num_envs)
            made, memory = jax.vmap(policy.act, in_axes=(0, 0, 0, None))(memory, keys, obs, clock)
            return (memory, key), made

        return jax.lax.scan(advance, (memory, key), (jnp.arange(len(rollout.reward)), obs))

    jit = functools.partial(jax.jit, compiler_options=compiler_options())
    step_envs = jit(lambda envs_state, action: jax.lax.scan(envs.step, envs_state, action))
    refresh, update = jit(envs.refresh), jit(learner.update)
    data = env.data(state.envs.envs)
    return {
        "physics": Call(lambda: step_physics(data, dynamics, ctrl)),
        "environment": Call(lambda: step_envs(state.envs, rollout.action)),
        "training": Call(iterate(step, state)),
        "policy": Call(lambda: act(state.learner, state.memory, state.key, rollout.obs)),
        "pool refresh": Call(lambda: refresh(state.envs)),
        "gradient": Call(lambda: update(state.learner, state.key, rollout)),
    }


def iterate(step: Callable, state: OnPolicyState) -> Callable[[], Any]:
    """One iteration after the other, as the training loop runs them."""
    carry = [own_buffers(state)]

    def run():
        carry[0], info = step(carry[0])
        return carry[0], info

    return run


def controls(parts: ppo_run.Built, rollout: Transition) -> jax.Array:  # -> [T, B, S, A]
    """Actuator targets of the rollout's actions, held for all substeps."""
    target = actuator_targets(parts.envs.spec.action, rollout.action)
    substeps = parts.envs.env.physics.substeps
    return jnp.broadcast_to(target[:, :, None], (*target.shape[:2], substeps, target.shape[2]))


def c_batch(parts: ppo_run.Built, state: OnPolicyState, rollout: Transition) -> tuple[Callable, Callable]:
    """The same control steps in `mujoco.batch.Batch` alone; the second function resets the robots."""
    physics, data = parts.envs.env.physics, state.envs.env.data(state.envs.envs)
    batch = mujoco.batch.Batch(physics.model, parts.envs.num_envs)
    for name, values in innermost(state.envs.envs).dynamics.items():
        field = batch.expand(name)
        field[...] = np.asarray(values).reshape(field.shape)
    batch.set_const()
    start = {name: np.array(getattr(data, name), float) for name in STATE_FIELDS if hasattr(data, name)}
    ctrl = np.array(controls(parts, rollout), float)

    def restart() -> None:
        for name, value in start.items():
            field = batch.bind(name)
            field[...] = value.reshape(field.shape)

    def run() -> None:
        for rows in ctrl:
            batch.rollout(physics.substeps, rows, record=())

    return run, restart


def profile(backend: str, timings: dict[str, CallTimes], through_callback: bool) -> dict[str, float]:
    """Seconds of one iteration by part, as differences of medians: a few percent are lost or won between them."""
    seconds = {name.removeprefix(f"{backend} "): timing.median for name, timing in timings.items()}
    found = {"physics": seconds["physics"]}
    if through_callback:
        found = {"physics": seconds["C batch"], "callback and copies": seconds["physics"] - seconds["C batch"]}
    found |= {
        "task and wrappers": seconds["environment"] - seconds["physics"],
        "policy": seconds["policy"],
        "pool refresh": seconds["pool refresh"],
        "gradient": seconds["gradient"],
    }
    return found | {"the rest": seconds["training"] - sum(found.values())}


if __name__ == "__main__":
    with clean_errors(ValueError):
        main(parse_arguments(Throughput, __doc__))
