"""Loops of a fixed number of steps, written out: a robot runs no graph that loops, and short ones run faster so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from mjx_policies.types import Array

MAX_STEPS = 1024


def unrolled(traced: ClosedJaxpr) -> Callable[..., list[Any]]:
    """The function that was traced, with each `lax.scan` as its steps, one after the other.

    `while_loop`, and `fori_loop` where it becomes one, stay as they are: nobody knows the number of their steps.

    Raises:
      ValueError: when it is called, if a loop has more than `MAX_STEPS` steps.
    """
    return (lambda *args: _evaluate(traced, args)) if _scans(traced.jaxpr) else jaxpr_as_fun(traced)


def _scans(jaxpr: Jaxpr) -> bool:
    """Whether there is a scan in it, however deep."""
    return any(
        eqn.primitive.name == "scan"
        or any(_scans(getattr(inner, "jaxpr", inner)) for inner in _inner(eqn.params.values()))
        for eqn in jaxpr.eqns
    )


def _inner(values: Any) -> list[Any]:
    found = []
    for value in values:
        if isinstance(value, ClosedJaxpr | Jaxpr):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _inner(value)
    return found


def _evaluate(closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *args), strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else known[variable]

    for eqn in jaxpr.eqns:
        values = [read(variable) for variable in eqn.invars]
        if eqn.primitive.name == "scan":
            found = _scan(eqn.params, values)
        elif eqn.primitive.name in ("jit", "pjit") and _scans(eqn.params["jaxpr"].jaxpr):
            found = _evaluate(eqn.params["jaxpr"], values)
        else:
            result = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
            found = result if eqn.primitive.multiple_results else [result]
        known.update(zip(eqn.outvars, found, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _scan(params: dict[str, Any], values: list[Any]) -> list[Any]:
    """The results of `lax.scan`: the last carry, then the outputs of all steps."""
    length, num_consts, num_carry = params["length"], params["num_consts"], params["num_carry"]
    if length > MAX_STEPS:
        raise ValueError(f"a loop of {length} steps is too long to be written out, {MAX_STEPS} is the limit")
    consts, carry = values[:num_consts], values[num_consts : num_consts + num_carry]
    rows = values[num_consts + num_carry :]
    outputs: list[list[Array] | None] = [None] * length
    for step in reversed(range(length)) if params["reverse"] else range(length):
        found = _evaluate(params["jaxpr"], [*consts, *carry, *(row[step] for row in rows)])
        carry, outputs[step] = found[:num_carry], found[num_carry:]
    return [*carry, *(jnp.stack(column) for column in zip(*outputs, strict=True))]
