"""An actor: the network between an observation and an action, both in their own units.

An actor is an `ActionHead` whose embedding is the observation: `actor(encoder, head, keys, units)` normalises what it
reads, encodes it, asks the head, and brings the action back to its units, in one place for every learner, evaluation
and export. Axes: D observation, E embedding, H horizon, A action.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from mjx_policies.heads.base import ActionHead
from mjx_policies.heads.inpainting import Prefix
from mjx_policies.memory import Memory
from mjx_policies.networks.apply import apply
from mjx_policies.normalize import Scale
from mjx_policies.types import Array, Observation, PyTree

Reference = Callable[[Observation], Array]
"""`obs -> [A]`, what actions are learnt relative to, such as the joints' positions, or the action of a base policy."""


@struct.dataclass
class Scales:
    """Scales in which a network sees observations and actions; no gradient reaches them.

    Attributes:
      observation: {name: its scale}; an entry without one is seen as it is, as a picture is.
      action: of [A] or, where every step of a chunk has one of its own, [H, A].
    """

    observation: dict[str, Scale]
    action: Scale


@dataclasses.dataclass(frozen=True)
class Units:
    """The units of an actor's numbers: their scales, their limits, and what actions are relative to.

    Attributes:
      scales: to begin with; None: as they are. Learning may replace them, for they are in the parameters.
      clip: what scaled observations are kept within.
      limit: what scaled actions are kept within; 1 where data do not go beyond, for a network may wherever it sees what
        it has never seen.
      reference: what actions are relative to; their scale is then that of the difference.
    """

    scales: Scales | None = None
    clip: float = math.inf
    limit: float = math.inf
    reference: Reference | None = None


def identity_scales(obs: Observation, keys: tuple[str, ...]) -> Scales:
    """The scales that leave every number as it is. Pictures (uint8) have no scale: their encoder knows their range."""
    vectors = {name: obs[name] for name in keys if name in obs and obs[name].dtype != jnp.uint8}
    observation = {name: Scale(jnp.zeros(x.shape, jnp.float32), jnp.ones(x.shape)) for name, x in vectors.items()}
    return Scales(observation, Scale(jnp.zeros(()), jnp.ones(())))


def scaled(scales: Scales, obs: Mapping[str, Any], clip: float) -> Observation:
    """Observations as a network sees them."""

    def one(name: str, x: Any) -> Array:
        if name not in scales.observation:
            return x
        x = scales.observation[name].apply(x)
        return x if math.isinf(clip) else jnp.clip(x, -clip, clip)

    return {name: one(name, x) for name, x in obs.items()}


def actor(
    encoder: nn.Module,
    head: ActionHead,
    keys: tuple[str, ...] = ("state",),
    units: Units = Units(),
    memory: Memory | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> ActionHead:
    """Builds an actor: an `ActionHead` whose embedding is the observation {name: array}, both in their own units.

    Its parameters are `{"scales", "encoder", "head"}`, and `"memory"` if it has one. Entries that the memory adds are
    read too.

    Args:
      encoder: {name: array} -> embedding, from scaled observations.
      head: what makes scaled actions.
      keys: the entries of an observation that are read: at deployment there is nothing else.
      units: scales, bounds, and what actions are relative to.
      memory: what it keeps between two steps.
      dtype: of the arithmetic of `loss`; parameters stay float32.
    """
    mode_of, draw, continue_from = head.mode, head.sample_from_noise, head.inpaint
    log_prob_of, action_log_prob_of, distribution_of = head.log_prob, head.action_log_prob, head.distribution
    added = () if memory is None else (memory.name,)

    def observe(params: PyTree, obs: Mapping[str, Any], names: tuple[str, ...] = (*keys, *added)) -> Observation:
        missing = [name for name in names if name not in obs]
        if missing:
            raise ValueError(f"the actor reads {missing[0]!r}, the observation has {', '.join(sorted(obs))}")
        return scaled(jax.lax.stop_gradient(params["scales"]), {name: obs[name] for name in names}, units.clip)

    def embed(params: PyTree, obs: Mapping[str, Any]) -> Array:
        return apply(encoder, params["encoder"], observe(params, obs))

    def base(obs: Any) -> Array | float:
        return 0.0 if units.reference is None else units.reference(obs)

    def outward(params: PyTree, obs: Observation, action: Array) -> Array:
        """Converts a scaled action to the action's own units."""
        if not math.isinf(units.limit):
            action = jnp.clip(action, -units.limit, units.limit)
        return cast(Array, jax.lax.stop_gradient(params["scales"]).action.invert(action)) + base(obs)

    def inward(params: PyTree, obs: Observation, action: Array) -> Array:
        return cast(Array, jax.lax.stop_gradient(params["scales"]).action.apply(action - base(obs)))

    def init(key: Array, obs: Observation) -> PyTree:
        key_encoder, key_head, key_memory = jax.random.split(key, 3)
        # Copies, so that no two parameters, nor a parameter and a constant, share memory that is given away.
        scales = identity_scales(obs, keys) if units.scales is None else jax.tree.map(jnp.array, units.scales)
        params: dict[str, Any] = {"scales": scales}
        if memory is not None:
            key_memory, key_begin, key_step = jax.random.split(key_memory, 3)
            read = read_by_memory(params, obs)
            params["memory"] = memory.init(key_memory, read)
            kept = memory.begin(params["memory"], key_begin, read)
            entry, _ = memory.step(params["memory"], kept, key_step, read, 0)
            obs = obs | {memory.name: entry}
        params["encoder"] = encoder.init(key_encoder, observe(params, obs))
        return params | {"head": head.init(key_head, embed(params, obs))}

    def read_by_memory(params: PyTree, obs: Observation) -> Observation:
        """The observation that the memory reads."""
        assert memory is not None
        return observe(params, obs, keys) if memory.learned else obs

    def loss(params: PyTree, key: Array, obs: Observation, action: Array, mask: Array | None = None) -> Array:
        action, seen = inward(params, obs, action), observe(params, obs)
        cast_params, seen, action = _cast(({name: params[name] for name in ("encoder", "head")}, seen, action), dtype)
        embedding = apply(encoder, cast_params["encoder"], seen)
        return head.loss(cast_params["head"], key, embedding, action, mask).astype(jnp.float32)

    def sample(params: PyTree, key: Array, obs: Observation) -> tuple[Array, PyTree]:
        action, trace = head.sample(params["head"], key, embed(params, obs))
        return outward(params, obs, action), trace

    def log_prob(params: PyTree, obs: Observation, decision: PyTree) -> Array:
        assert log_prob_of is not None
        return log_prob_of(params["head"], embed(params, obs), decision)

    def action_log_prob(params: PyTree, obs: Observation, trace: PyTree) -> Array:
        """Log density of the scaled action: that of the action in its own units differs by a constant."""
        assert action_log_prob_of is not None
        return action_log_prob_of(params["head"], embed(params, obs), trace)

    def mode(params: PyTree, obs: Observation) -> Array:
        assert mode_of is not None
        return outward(params, obs, mode_of(params["head"], embed(params, obs)))

    def distribution(params: PyTree, obs: Observation) -> distrax.Distribution:
        assert distribution_of is not None
        return distribution_of(params["head"], embed(params, obs))

    def sample_from_noise(params: PyTree, obs: Observation, noise: Array) -> Array:
        assert draw is not None
        return outward(params, obs, draw(params["head"], embed(params, obs), noise))

    def inpaint(params: PyTree, obs: Observation, noise: Array, prefix: Prefix) -> Array:
        assert continue_from is not None
        prefix = prefix._replace(action=inward(params, obs, prefix.action))
        return outward(params, obs, continue_from(params["head"], embed(params, obs), noise, prefix))

    return ActionHead(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_prob if log_prob_of else None,
        action_log_prob=action_log_prob if action_log_prob_of else None,
        mode=mode if mode_of else None,
        distribution=distribution if distribution_of else None,
        noise=head.noise,
        sample_from_noise=sample_from_noise if draw else None,
        inpaint=inpaint if continue_from else None,
        decisions=head.decisions,
        memory=None if memory is None else _of_actor(memory, read_by_memory),
    )


def _of_actor(memory: Memory, read: Callable[[PyTree, Observation], Observation]) -> Memory:
    """The memory as a function of the parameters and the observations of the actor that it belongs to."""

    def begin(params: PyTree, key: Any, obs: Observation) -> PyTree:
        return memory.begin(params["memory"], key, read(params, obs))

    def step(params: PyTree, kept: PyTree, key: Any, obs: Observation, clock: Any) -> tuple[Array, PyTree]:
        return memory.step(params["memory"], kept, key, read(params, obs), clock)

    return memory._replace(begin=begin, step=step)


def pretrained(actor: ActionHead, params: PyTree) -> ActionHead:
    """The actor whose learning begins with these parameters, whatever trained them."""
    return actor._replace(init=lambda key, obs: jax.tree.map(jnp.array, params))


def recall(
    actor: ActionHead, params: PyTree, memory: PyTree, key: Any, obs: Observation, clock: Any
) -> tuple[Observation, PyTree]:
    """The observation with the entry of the memory, which the functions of an actor take; and the memory after."""
    if actor.memory is None:
        return obs, memory
    entry, memory = actor.memory.step(params, memory, key, obs, clock)
    return obs | {actor.memory.name: entry}, memory


def begin(actor: ActionHead, params: PyTree, key: Any, obs: Observation) -> PyTree:
    """The memory of an actor when an episode begins."""
    return () if actor.memory is None else actor.memory.begin(params, key, obs)


def _cast(tree: PyTree, dtype: str) -> PyTree:
    """Casts floats to `dtype`."""
    kind = jnp.dtype(dtype)
    return jax.tree.map(lambda x: x.astype(kind) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
