"""Behaviour cloning as iterations of many gradient steps, each one compiled program.

Demonstrations that fit lie on the device, and an iteration is told which windows to take; larger ones are cut out on
the host by other threads, while the device works. Which windows a gradient step learns from depends on its number
alone, so both ways learn the same, and a run goes on from a checkpoint as if nothing had happened.
Axes: S runs, G seeds, K gradient steps, N examples of a batch, W windows.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mjx_policies.agents.base import Info
from mjx_policies.agents.bc import BCState, imitation_loss
from mjx_policies.agents.sweep import side_by_side
from mjx_policies.compiler import compiler_options
from mjx_policies.data.feed import Feed
from mjx_policies.data.mixture import Shuffled
from mjx_policies.data.windows import Window
from mjx_policies.envs.base import EnvSpec
from mjx_policies.experiments.runs.bc import BCRun, action_error, example, init, make_learner
from mjx_policies.experiments.runs.demonstrations import Demonstrations
from mjx_policies.experiments.runs.grid import beginning, members
from mjx_policies.heads.base import ActionHead
from mjx_policies.types import Array, PyTree

RESIDENT = 2**30  # bytes of windows that a device takes in
EXAMINED = 64  # held-out windows
_UPDATES, _EXAMINATION = 0x757064, 0x657861  # tell their keys apart


@struct.dataclass
class CloningState:
    """All that decides the future.

    Attributes:
      learner: [S, ...] of a sweep.
    """

    learner: BCState


class Cloning(NamedTuple):
    """A run of behaviour cloning in pieces, for `training.loop`.

    Attributes:
      init: `() -> state`.
      step: `state -> (state, info)`: K gradient steps, and what held-out demonstrations say of the policy then.
      steps_per_iteration: K.
    """

    init: Callable[[], CloningState]
    step: Callable[[CloningState], tuple[CloningState, Info]]
    steps_per_iteration: int


@contextlib.contextmanager
def cloning(
    config: BCRun,
    spec: EnvSpec,
    network: ActionHead,
    demonstrations: Demonstrations,
    steps_per_iteration: int = 100,
    resident_bytes: int = RESIDENT,
    begin: PyTree | None = None,
) -> Iterator[Cloning]:
    """Opens the demonstrations for learning.

    Args:
      config: of the run.
      spec: of the task.
      network: of `make_actor`, with the scales of the demonstrations.
      demonstrations: of `prepare`.
      steps_per_iteration: K.
      resident_bytes: windows that take more are cut out on the host.
      begin: parameters of a policy that goes on learning, with its scales; the schedule and the average begin anew.
    """
    maker = make_learner(config, spec, network)
    windows, count = demonstrations.windows, len(demonstrations.training)
    samplers = [Shuffled(count, config.seed + s) for s in range(config.seeds)]
    runs = len(members(config))
    which = np.arange(runs, dtype=np.int32) % config.seeds  # [S] the sampler of each run
    size = steps_per_iteration * config.batch_size
    resident = window_bytes(demonstrations) * count <= resident_bytes

    def chosen(iteration: int) -> np.ndarray:  # [K, G, N]
        return np.stack([sampler(iteration, size).reshape(-1, config.batch_size) for sampler in samplers], axis=1)

    def batches(iteration: int) -> Any:
        if resident:
            return chosen(iteration).astype(np.int32)
        rows = chosen(iteration)
        window = windows.take(demonstrations.training[rows.ravel()])
        return jax.tree.map(lambda x: x.reshape(*rows.shape, *x.shape[1:]), window)

    def learn(learner: BCState, key: Array, which: Array, batches: Any, table: Window | None) -> tuple[BCState, Info]:
        def step(learner: BCState, batch: Any) -> tuple[BCState, Info]:
            batch = jax.tree.map(lambda of_seeds: of_seeds[which], batch)
            if table is not None:
                batch = jax.tree.map(lambda rows: rows[batch], table)
            return maker.update(learner, jax.random.fold_in(key, learner.step), batch)

        learner, info = jax.lax.scan(step, learner, batches)
        return learner, jax.tree.map(jnp.mean, info)

    def examine(learner: BCState, key: Array, window: Window) -> Info:
        key_loss, key_act = jax.random.split(key)
        return {
            "loss/validation": imitation_loss(network, learner.average, key_loss, window),
            "action/error": action_error(config, network, learner.average, key_act, window),
        }

    keys, _ = beginning(config)
    fold_in = side_by_side(jax.random.fold_in, runs, (0, None))
    key_updates, key_examination = fold_in(keys, _UPDATES), fold_in(keys, _EXAMINATION)
    options = compiler_options()
    advance = jax.jit(side_by_side(learn, runs, (0, 0, 0, None, None)), donate_argnums=0, compiler_options=options)
    look = jax.jit(side_by_side(examine, runs, (0, 0, None)), compiler_options=options)
    which = which if runs > 1 else which[0]
    table = _put(windows.take(demonstrations.training)) if resident else None
    held = _spread_out(demonstrations.validation, EXAMINED)
    examined = _put(windows.take(held)) if len(held) else None

    with contextlib.ExitStack() as stack:
        feeds: list[Feed] = []

        def step(state: CloningState) -> tuple[CloningState, Info]:
            if not feeds:
                done = int(np.ravel(state.learner.step)[0])
                feeds.append(stack.enter_context(Feed(batches, first=done // steps_per_iteration)))
            learner, info = advance(state.learner, key_updates, which, next(feeds[0]), table)
            if examined is not None:
                info |= look(learner, key_examination, examined)
            return CloningState(learner), info

        def start() -> CloningState:
            make = jax.jit(
                lambda: init(config, maker, example(config, spec)),
                compiler_options=compiler_options(runs_once=True),
            )
            learner = make()
            if begin is not None:
                params, average = (jax.tree.map(jnp.array, begin) for _ in range(2))  # each its own memory
                learner = dataclasses.replace(learner, params=params, average=average)
            return CloningState(learner)

        yield Cloning(start, step, steps_per_iteration)


def window_bytes(demonstrations: Demonstrations) -> int:
    """Of one window."""
    one = demonstrations.windows.take(np.arange(1))
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(one))


def _spread_out(rows: np.ndarray, count: int) -> np.ndarray:
    """Up to so many, evenly."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)] if len(rows) else rows


def _put(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.asarray, tree)
