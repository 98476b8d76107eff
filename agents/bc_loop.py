"""Behaviour cloning as iterations of many gradient steps, each one compiled program.

Demonstrations that fit lie on the device, and an iteration is told which windows to take; larger ones are cut out on
the host by other threads, while the device works. Which windows a gradient step learns from depends on its number
alone, so both ways learn the same, and a run goes on from a checkpoint as if nothing had happened.
Axes: S seeds, K gradient steps, N examples of a batch, W windows.
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
from mjx_policies.agents.bc import BCState, Cloner
from mjx_policies.agents.bc_run import Config, Demonstrations, action_error, init, seed_keys
from mjx_policies.compiler import compiler_options
from mjx_policies.data.feed import Feed
from mjx_policies.data.mixture import Shuffled
from mjx_policies.data.windows import Window
from mjx_policies.types import Array, PyTree

RESIDENT = 2**30  # bytes of windows that a device takes in
EXAMINED = 64  # held-out windows
_UPDATES, _EXAMINATION = 0x757064, 0x657861  # tell their keys apart


@struct.dataclass
class CloningState:
    """All that decides the future.

    Attributes:
      learner: [S, ...] if there are several seeds.
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
    config: Config,
    cloner: Cloner,
    demonstrations: Demonstrations,
    steps_per_iteration: int = 100,
    resident_bytes: int = RESIDENT,
    begin: BCState | None = None,
) -> Iterator[Cloning]:
    """Opens the demonstrations for learning.

    Args:
      config: of the run.
      cloner: of `make_cloner`.
      demonstrations: of `prepare`.
      steps_per_iteration: K.
      resident_bytes: windows that take more are cut out on the host.
      begin: a policy that goes on learning, with its scales; the schedule and the average begin anew.
    """
    windows, count = demonstrations.windows, len(demonstrations.training)
    samplers = [Shuffled(count, config.seed + s) for s in range(config.seeds)]
    size = steps_per_iteration * config.batch_size
    resident = window_bytes(demonstrations) * count <= resident_bytes

    def for_seeds(function: Callable[..., Any], in_axes: tuple[int | None, ...]) -> Callable[..., Any]:
        return jax.vmap(function, in_axes) if config.seeds > 1 else function

    def chosen(iteration: int) -> np.ndarray:  # [K, N] or [S, K, N]
        rows = [sampler(iteration, size).reshape(steps_per_iteration, config.batch_size) for sampler in samplers]
        return np.stack(rows) if config.seeds > 1 else rows[0]

    def batches(iteration: int) -> Any:
        if resident:
            return chosen(iteration).astype(np.int32)
        rows = chosen(iteration)
        window = windows.take(demonstrations.training[rows.ravel()])
        return jax.tree.map(lambda x: x.reshape(*rows.shape, *x.shape[1:]), window)

    def learn(learner: BCState, key: Array, batches: Any, table: Window | None) -> tuple[BCState, Info]:
        def step(learner: BCState, batch: Any) -> tuple[BCState, Info]:
            if table is not None:
                batch = jax.tree.map(lambda rows: rows[batch], table)
            return cloner.update(learner, jax.random.fold_in(key, learner.step), batch)

        learner, info = jax.lax.scan(step, learner, batches)
        return learner, jax.tree.map(jnp.mean, info)

    def examine(learner: BCState, key: Array, window: Window) -> Info:
        key_loss, key_act = jax.random.split(key)
        return {
            "loss/validation": cloner.loss(learner, key_loss, window),
            "action/error": action_error(config, cloner, learner, key_act, window),
        }

    keys = seed_keys(config) if config.seeds > 1 else seed_keys(config)[0]
    fold_in = for_seeds(jax.random.fold_in, (0, None))
    key_updates, key_examination = fold_in(keys, _UPDATES), fold_in(keys, _EXAMINATION)
    options = compiler_options()
    advance = jax.jit(for_seeds(learn, (0, 0, 0, None)), donate_argnums=0, compiler_options=options)
    look = jax.jit(for_seeds(examine, (0, 0, None)), compiler_options=options)
    table = _put(windows.take(demonstrations.training)) if resident else None
    held = _spread_out(demonstrations.validation, EXAMINED)
    examined = _put(windows.take(held)) if len(held) else None

    with contextlib.ExitStack() as stack:
        feeds: list[Feed] = []

        def step(state: CloningState) -> tuple[CloningState, Info]:
            if not feeds:
                done = int(np.ravel(state.learner.step)[0])
                feeds.append(stack.enter_context(Feed(batches, first=done // steps_per_iteration)))
            learner, info = advance(state.learner, key_updates, next(feeds[0]), table)
            if examined is not None:
                info |= look(learner, key_examination, examined)
            return CloningState(learner), jax.tree.map(jnp.mean, info)

        def start() -> CloningState:
            make = jax.jit(
                lambda: init(config, cloner, demonstrations.example, demonstrations.scales),
                compiler_options=compiler_options(runs_once=True),
            )
            learner = make()
            if begin is not None:
                params, average = (jax.tree.map(jnp.array, begin.average) for _ in range(2))  # each its own memory
                learner = dataclasses.replace(
                    learner, params=params, average=average, scales=jax.tree.map(jnp.array, begin.scales)
                )
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
