"""Overfitting one batch of a handful of rows: what can learn anything can do that. Axes: S gradient steps, N rows.

trace = overfit(loss, params, batch)            # your own loss(params, batch) -> []
diagnosis = diagnose(trace=trace)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mjx_policies.compiler import compiler_options
from mjx_policies.diagnosis.base import CheckResult, learns, listed
from mjx_policies.diagnosis.regression import standardise
from mjx_policies.diagnosis.steps import Steps
from mjx_policies.networks.mlp import MLP
from mjx_policies.training.trees import leaf_names
from mjx_policies.types import Array, PyTree

ROWS = 4  # of data, which a network is to overfit
FIRST = 10  # gradient steps in which every part of a network must have felt something
OVERFITTED = 0.01  # of the first loss
LEAP = 0.3  # a gradient step, per size of what it changes, above which nothing can be refined


@dataclasses.dataclass(frozen=True)
class Trace:
    """The course of a few hundred gradient steps on the same rows.

    Attributes:
      loss: [S] before each step.
      gradient: {leaf: [S]} norms, of what is meant to move.
      step: [S] norm of all changes per norm of all parameters.
      learning_rate: of Adam.
      floor: loss that nothing gets below, because equal rows ask for different answers.
    """

    loss: np.ndarray
    gradient: dict[str, np.ndarray]
    step: np.ndarray
    learning_rate: float
    floor: float = 0.0


def overfit(
    loss: Callable[[PyTree, Any], Array],
    params: PyTree,
    batch: Any,
    steps: int = 300,
    learning_rate: float = 3e-3,
    floor: float = 0.0,
) -> Trace:
    """Takes gradient steps of Adam on one batch, over and over, in one compiled program.

    Args:
      loss: `(params, batch) -> []`; give a loss that draws noise a key of its own, the same one each time.
      params: to start from; unaltered.
      batch: a handful of rows, four for example.
      steps: of the gradient.
      learning_rate: of Adam; that of the run, to check it as well.
      floor: of the loss, see `Trace`.
    """
    value, norms, step = jax.device_get(_descent(loss, steps, learning_rate)(params, batch))
    gradient = {name: norms[:, i] for i, name in enumerate(leaf_names(params)) if learns(name)}
    return Trace(value, gradient, step, learning_rate, floor)


@functools.lru_cache(maxsize=8)  # so that data of equal widths are compiled for once
def _descent(loss: Callable[[PyTree, Any], Array], steps: int, learning_rate: float) -> Callable:
    """The compiled program `(params, batch) -> (loss [S], norms [S, leaves], step [S])`."""
    optimizer = optax.adam(learning_rate)

    def run(params, batch):
        def descend(carry, _):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, batch)
            updates, state = optimizer.update(gradient, state, params)
            norms = jnp.stack([jnp.linalg.norm(leaf) for leaf in jax.tree.leaves(gradient)])
            step = optax.tree.norm(updates) / (optax.tree.norm(params) + 1e-12)
            return (optax.apply_updates(params, updates), state), (value, norms, step)

        return jax.lax.scan(descend, (params, optimizer.init(params)), None, steps)[1]

    return jax.jit(run, compiler_options=compiler_options())


@functools.lru_cache(maxsize=8)
def _learner(outputs: int) -> tuple[Callable, Callable]:
    """`(key, input) -> params` and `(params, (inputs, outputs)) -> loss` of a small network."""
    network = MLP((64, 64, outputs))

    def loss(params: PyTree, batch: tuple[Array, Array]) -> Array:
        return jnp.mean(jnp.square(network.apply(params, batch[0]) - batch[1]))  # type: ignore[operator]

    return jax.jit(network.init), loss


def overfit_rows(steps: Steps, seed: int = 0) -> Trace | None:
    """Overfits a small network to a batch of four rows that are far apart; None where there are too few rows."""
    here = steps.around(0, 0)
    if len(here) < ROWS:
        return None
    here = here[np.linspace(0, len(here) - 1, ROWS).astype(int)]
    # The scale of all steps, so that a column that hardly differs between the four stays small.
    inputs, outputs = (standardise(values)[here].astype(np.float32) for values in (steps.observation, steps.action))
    _, group = np.unique(inputs, axis=0, return_inverse=True)
    means = np.stack([outputs[group == number].mean(axis=0) for number in group])
    init, loss = _learner(outputs.shape[1])
    params = init(jax.random.key(seed), inputs[0])
    return overfit(loss, params, (inputs, outputs), floor=float(np.mean(np.square(outputs - means))))


def not_finite(trace: Trace) -> CheckResult | None:
    """A loss or a gradient that is not finite from the start."""
    bad = [name for name, norms in trace.gradient.items() if not np.isfinite(norms[:FIRST]).all()]
    if np.isfinite(trace.loss[:FIRST]).all() and not bad:
        return CheckResult("loss and gradients are finite")
    return CheckResult(
        f"loss {trace.loss[0]:.3g} at the start, {np.isfinite(trace.loss).sum()} of {len(trace.loss)} losses "
        "are finite",
        f"the gradient is NaN or infinite from the first steps on{f', in {listed(bad)}' if bad else ''}.",
        "Run the loss once with jax_debug_nans, and check for a division, a root or a logarithm at zero.",
    )


def dead_gradient(trace: Trace) -> CheckResult | None:
    """Parameters that no gradient reaches."""
    dead = [name for name, norms in trace.gradient.items() if not np.any(norms[:FIRST])]
    if not dead:
        least = min(float(np.max(norms[:FIRST])) for norms in trace.gradient.values())
        return CheckResult(
            f"all {len(trace.gradient)} parameter arrays have a gradient, the smallest of norm {least:.2g}"
        )
    return CheckResult(
        f"{len(dead)} of {len(trace.gradient)} parameter arrays have a gradient of exactly 0 in {FIRST} steps: "
        + listed(dead),
        f"no gradient reaches {dead[0]}.",
        "Check for a stop_gradient, a detached copy, an output nobody uses, or activations that are zero for all rows.",
    )


def step_too_large(trace: Trace) -> CheckResult | None:
    """Steps so large that each undoes the one before."""
    last = trace.loss[len(trace.loss) // 2 :]
    size = float(np.median(trace.step[1 : FIRST + 1])) if len(trace.step) > FIRST else float(np.median(trace.step))
    evidence = (
        f"a step changes parameters by {size:.2g} of their size; the loss goes from {trace.loss[0]:.3g} to "
        f"{np.median(last):.3g}, with a highest of {np.max(trace.loss):.3g}"
    )
    unsettled = not np.isfinite(last).all() or np.median(last) - trace.floor > OVERFITTED * trace.loss[0]
    if unsettled and size > LEAP:
        return CheckResult(
            evidence,
            f"the learning rate {trace.learning_rate:g} is too high: steps overshoot what they aim at.",
            f"Try again with {trace.learning_rate / 10:g}, and then with {trace.learning_rate / 100:g}.",
        )
    return CheckResult(evidence)


def overfits(trace: Trace) -> CheckResult | None:
    """Whether the loss of the batch went to its floor."""
    start, last = float(trace.loss[0]), float(np.median(trace.loss[-max(1, len(trace.loss) // 20) :]))
    early = trace.loss[min(FIRST, len(trace.loss) - 1)]
    evidence = f"the loss goes from {start:.3g} to {last:.3g} in {len(trace.loss)} steps, in {FIRST} to {early:.3g}"
    if np.isfinite(last) and last - trace.floor <= OVERFITTED * start and trace.floor <= OVERFITTED * max(start, 1e-12):
        return CheckResult(f"overfits: yes; {evidence}")
    if trace.floor > OVERFITTED * start:
        return CheckResult(
            f"overfits: no; {evidence}",
            "rows that are alike ask for different actions, so a network cannot tell them apart.",
            "Compare two such rows by eye, and find what the demonstrator saw that is not in the observation.",
        )
    return CheckResult(
        f"overfits: no; {evidence}",
        "not even one batch of a few rows can be overfitted: the loss does not reach what it should change.",
        "Print the loss of one row by hand, and follow it from the batch to the parameters.",
    )
