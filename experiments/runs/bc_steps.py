"""Behaviour cloning as iterations of many gradient steps, each one compiled program.

Demonstrations that fit lie on the device, and an iteration is told which windows to take; larger ones are cut out on
the host by other threads, while the device works. Which windows a gradient step learns from depends on its number
alone, so both ways learn the same, and a run goes on from a checkpoint as if nothing had happened.
Axes: S runs, G seeds, K gradient steps, N examples of a batch, W windows.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mjx_policies.agents.base import Info
from mjx_policies.agents.bc import BCState, imitation_loss
from mjx_policies.agents.sweep import side_by_side
from mjx_policies.compiler import compiler_options
from mjx_policies.data.feed import Feed
from mjx_policies.data.shuffle import Shuffled
from mjx_policies.data.windows import Window
from mjx_policies.envs.base import EnvSpec
from mjx_policies.experiments.runs.bc import BCRun, action_error, example, make_learner
from mjx_policies.experiments.runs.demonstrations import Demonstrations
from mjx_policies.experiments.runs.grid import beginning, members
from mjx_policies.heads.base import ActionHead
from mjx_policies.training.job import Job
from mjx_policies.types import Array, PyTree

DEVICE_BYTES = 2**30  # of windows that a device takes in
VALIDATION_WINDOWS = 64
_UPDATES, _VALIDATION = 0x757064, 0x657861  # tell their keys apart


@struct.dataclass
class BCRunState:
    """All that decides the future of a run.

    Attributes:
      learner: [S, ...] of a sweep.
    """

    learner: BCState


@contextlib.contextmanager
def bc_job(
    config: BCRun,
    spec: EnvSpec,
    network: ActionHead,
    demonstrations: Demonstrations,
    steps_per_iteration: int = 100,
    device_bytes: int = DEVICE_BYTES,
    params: PyTree | None = None,
) -> Iterator[Job[BCRunState]]:
    """The job of a run, whose iterations are K gradient steps and a validation.

    Args:
      config: of the run.
      spec: of the task.
      network: of `make_actor`, with the scales of the demonstrations.
      demonstrations: of `prepare`.
      steps_per_iteration: K.
      device_bytes: windows that take more are cut out on the host.
      params: of a policy that goes on learning, with its scales; the schedule and the average begin anew.
    """
    learner = make_learner(config, spec, network)
    windows, count = demonstrations.windows, len(demonstrations.training)
    samplers = [Shuffled(count, config.seed + s) for s in range(config.seeds)]
    runs = len(members(config))
    # [S] the sampler of each run
    which: Any = np.arange(runs, dtype=np.int32) % config.seeds if runs > 1 else np.int32(0)
    size = steps_per_iteration * config.batch_size
    window_bytes = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(windows.take(np.arange(1))))
    on_device = window_bytes * count <= device_bytes

    def batches(iteration: int) -> Any:  # [K, G, N]
        rows = np.stack([sampler(iteration, size).reshape(-1, config.batch_size) for sampler in samplers], axis=1)
        if on_device:
            return rows.astype(np.int32)
        window = windows.take(demonstrations.training[rows.ravel()])
        return jax.tree.map(lambda x: x.reshape(*rows.shape, *x.shape[1:]), window)

    def learn(state: BCState, key: Array, which: Array, batches: Any, table: Window | None) -> tuple[BCState, Info]:
        def step(state: BCState, batch: Any) -> tuple[BCState, Info]:
            batch = jax.tree.map(lambda of_seeds: of_seeds[which], batch)
            if table is not None:
                batch = jax.tree.map(lambda rows: rows[batch], table)
            return learner.update(state, jax.random.fold_in(key, state.step), batch)

        state, info = jax.lax.scan(step, state, batches)
        return state, jax.tree.map(jnp.mean, info)

    def validate(state: BCState, key: Array, window: Window) -> Info:
        key_loss, key_act = jax.random.split(key)
        return {
            "loss/validation": imitation_loss(network, state.average, key_loss, window),
            "action/error": action_error(config, network, state.average, key_act, window),
        }

    keys, _ = beginning(config)
    fold_in = side_by_side(jax.random.fold_in, runs, (0, None))
    key_updates, key_validation = fold_in(keys, _UPDATES), fold_in(keys, _VALIDATION)
    options = compiler_options()
    learn_all = jax.jit(side_by_side(learn, runs, (0, 0, 0, None, None)), donate_argnums=0, compiler_options=options)
    validate_all = jax.jit(side_by_side(validate, runs, (0, 0, None)), compiler_options=options)
    table = jax.tree.map(jnp.asarray, windows.take(demonstrations.training)) if on_device else None
    held = demonstrations.validation
    spread = np.linspace(0, len(held) - 1, min(VALIDATION_WINDOWS, len(held))).astype(int)
    validation = jax.tree.map(jnp.asarray, windows.take(held[spread])) if len(held) else None

    def init() -> BCRunState:
        one = side_by_side(lambda key, hyper: learner.init(key, example(config, spec), hyper), runs)
        state = jax.jit(lambda: one(*beginning(config)), compiler_options=compiler_options(runs_once=True))()
        if params is not None:
            own, average = (jax.tree.map(jnp.array, params) for _ in range(2))  # each its own memory
            state = dataclasses.replace(state, params=own, average=average)
        return BCRunState(state)

    with contextlib.ExitStack() as stack:
        feeds: list[Feed] = []

        def step(state: BCRunState) -> tuple[BCRunState, Info]:
            if not feeds:
                done = int(np.ravel(state.learner.step)[0])
                feeds.append(stack.enter_context(Feed(batches, first=done // steps_per_iteration)))
            learned, info = learn_all(state.learner, key_updates, which, next(feeds[0]), table)
            if validation is not None:
                info |= validate_all(learned, key_validation, validation)
            return BCRunState(learned), info

        yield Job(init, step, steps_per_iteration, jit=False)
