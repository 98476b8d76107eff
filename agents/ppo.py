"""Proximal policy optimisation, Schulman et al. 2017 (arXiv:1707.06347). Axes: T time, B environments, N samples.

On-policy: `update` is wrong on data that another policy, or an older version of this one, collected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from mjx_policies.agents.base import Info, Learner
from mjx_policies.agents.gae import gae
from mjx_policies.agents.on_policy import Rollout
from mjx_policies.heads.base import ActionHead
from mjx_policies.normalize import Normalizer, init_normalizer, merge, moments, normalize, without_outliers
from mjx_policies.types import Array, Number, Observation, PyTree


@struct.dataclass
class PPOHyper:
    """Numbers of a run: leaves, so a batch of them is a batch of runs.

    Attributes:
      learning_rate: of the first update; constant if `desired_kl` is zero.
      desired_kl: the learning rate is divided by 1.5 where a minibatch moved the policy by more than twice this, and
        multiplied where by less than half (as in rsl_rl).
      final_desired_kl, anneal_updates: `desired_kl` goes to this, geometrically, over so many updates: large steps find
        a gait quickly, small ones make it precise. Zero updates, the default, leave it where it is.
      min_learning_rate, max_learning_rate: its bounds.
      clip: of the probability ratio.
      discount, trace_decay: gamma and lambda.
      entropy, final_entropy: weight of the entropy bonus, which goes from the one to the other over as many updates.
        Below zero it narrows the exploration: the mean action alone, which is deployed, must walk as the noisy one did.
      value: weight of the critic's squared error.
      symmetry: weight of the mirror loss; needs a `Symmetry`.
      max_grad_norm: of the gradient of the actor and of the critic.
    """

    learning_rate: Number = 1e-3
    desired_kl: Number = 0.01
    final_desired_kl: Number = 0.01
    anneal_updates: Number = 0.0
    min_learning_rate: Number = 1e-5
    max_learning_rate: Number = 1e-2
    clip: Number = 0.2
    discount: Number = 0.97
    trace_decay: Number = 0.95
    entropy: Number = 0.005
    final_entropy: Number = 0.005
    value: Number = 1.0
    symmetry: Number = 0.0
    max_grad_norm: Number = 1.0

    def __post_init__(self) -> None:
        for name, least, most in HYPER_RANGES:
            value = getattr(self, name)
            # Anything else is a leaf: traced, batched or a placeholder of a tree transformation.
            if isinstance(value, int | float) and not least <= value <= most:
                raise ValueError(f"hyper.{name} is {value:g}, it must lie between {least:g} and {most:g}")
        low, high = self.min_learning_rate, self.max_learning_rate
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            raise ValueError(f"hyper.min_learning_rate {low:g} lies above hyper.max_learning_rate {high:g}")


TINY, HUGE = 1e-12, 1e12  # "above zero" and "finite"
HYPER_RANGES = (
    ("learning_rate", 0.0, HUGE),
    ("desired_kl", 0.0, HUGE),
    ("final_desired_kl", 0.0, HUGE),
    ("anneal_updates", 0.0, HUGE),
    ("min_learning_rate", TINY, HUGE),
    ("max_learning_rate", TINY, HUGE),
    ("clip", TINY, HUGE),
    ("discount", 0.0, 1.0),
    ("trace_decay", 0.0, 1.0),
    ("entropy", -HUGE, HUGE),
    ("final_entropy", -HUGE, HUGE),
    ("value", 0.0, HUGE),
    ("symmetry", 0.0, HUGE),
    ("max_grad_norm", TINY, HUGE),
)


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Sizes of a run: they fix array shapes.

    Attributes:
      num_epochs: passes over a rollout.
      num_minibatches: gradient steps in a pass; divides the number of environments.
      clip_jointly: one gradient norm for actor and critic together instead of one each.
    """

    num_epochs: int = 4
    num_minibatches: int = 4
    clip_jointly: bool = False

    def __post_init__(self) -> None:
        for name in ("num_epochs", "num_minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")


class Symmetry(NamedTuple):
    """A reflection of the robot that leaves its task unchanged.

    Attributes:
      observation: observations [..., D] -> the mirrored robot's.
      action: actions [..., A] -> the mirrored robot's.
      loss: whether to add the mirror loss of Yu et al. 2018 (arXiv:1801.08093); symmetric networks have none.
    """

    observation: Callable[[Observation], Observation]
    action: Callable[[Array], Array]
    loss: bool = True


@struct.dataclass
class PPOState:
    """What learning carries on.

    Attributes:
      params: `{"actor": ..., "critic": ...}`.
      opt_state: of Adam.
      normalizer: moments of all observations up to the last update.
      learning_rate: [] the current one.
      updates: [] int32, calls of `update` so far.
      hyper: numbers of the run.
    """

    params: PyTree
    opt_state: optax.OptState
    normalizer: Normalizer
    learning_rate: Array
    updates: Array
    hyper: PPOHyper


def clipped_surrogate(log_prob: Array, old_log_prob: Array, advantage: Array, clip: Number) -> Array:  # [N] -> [N]
    """Equation 7, negated because we minimise."""
    ratio = jnp.exp(log_prob - old_log_prob)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def anneal(updates: Array, hyper: PPOHyper) -> PPOHyper:
    """The numbers of this update: `desired_kl` and `entropy` on their way to their final values."""
    part = jnp.clip(updates / jnp.maximum(hyper.anneal_updates, 1.0), 0.0, 1.0)
    progress = jnp.where(hyper.anneal_updates > 0, part, 0.0)
    desired_kl = hyper.desired_kl ** (1 - progress) * hyper.final_desired_kl**progress
    return dataclasses.replace(
        hyper,
        desired_kl=jnp.where(hyper.desired_kl > 0, desired_kl, 0.0),
        entropy=(1 - progress) * hyper.entropy + progress * hyper.final_entropy,
    )


def adapt_learning_rate(learning_rate: Array, kl: Array, hyper: PPOHyper) -> Array:  # [] -> []
    """Steers the learning rate so that the gradient steps of an update change the policy by about `desired_kl`."""
    down = kl > 2 * hyper.desired_kl
    up = kl < hyper.desired_kl / 2
    adapted = jnp.where(down, learning_rate / 1.5, jnp.where(up, learning_rate * 1.5, learning_rate))
    bounded = jnp.clip(adapted, hyper.min_learning_rate, hyper.max_learning_rate)
    return jnp.where(hyper.desired_kl > 0, bounded, learning_rate)


def mirror_moments(seen: Normalizer, symmetry: Symmetry) -> Normalizer:
    """The moments of the mirror images."""
    variance = jax.tree.map(jnp.abs, symmetry.observation(seen.variance))  # changes places, but no sign
    return dataclasses.replace(seen, mean=symmetry.observation(seen.mean), variance=variance)


def clip_gradients(grads: PyTree, max_norm: Number, jointly: bool) -> PyTree:
    """Scales the gradients of actor and critic down to `max_norm`, each by its own norm or both by their joint one."""

    def clip(tree):
        return jax.tree.map(lambda g: g * jnp.minimum(1.0, max_norm / (optax.tree.norm(tree) + 1e-6)), tree)

    return clip(grads) if jointly else {name: clip(tree) for name, tree in grads.items()}


def ppo(head: ActionHead, critic: nn.Module, config: PPOConfig, symmetry: Symmetry | None = None) -> Learner:
    """Builds the learner.

    Args:
      head: acts on the normalised `obs["state"]`.
      critic: [D + P] -> [1], judges the normalised `obs["state"]` and, if there is one, `obs["privileged"]`.
      config: sizes.
      symmetry: reflection for the mirror loss and for a normaliser that treats left and right alike.

    Raises:
      ValueError: the head has no density.
    """
    if head.log_prob is None or head.mode is None:
        raise ValueError("ppo needs a head with log_prob and mode; this head lacks one. Use gaussian_head.")
    log_prob_of, mode_of = head.log_prob, head.mode
    optimizer = optax.flatten(optax.scale_by_adam(eps=1e-5))  # one vector compiles sooner than a step of each leaf

    def value_of(params: PyTree, obs: Observation) -> Array:
        inputs = jnp.concatenate([obs[name] for name in ("state", "privileged") if name in obs], axis=-1)
        return cast(Array, critic.apply(params, inputs))[..., 0]  # a pair only where something is mutable

    def init(key: Array, obs: Observation, hyper: PPOHyper) -> PPOState:
        key_actor, key_critic = jax.random.split(key)
        inputs = jnp.concatenate([obs[name] for name in ("state", "privileged") if name in obs])
        params = {"actor": head.init(key_actor, obs["state"]), "critic": critic.init(key_critic, inputs)}
        hyper = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hyper)
        return PPOState(
            params=params,
            opt_state=optimizer.init(params),
            normalizer=init_normalizer(obs),
            learning_rate=jnp.asarray(hyper.learning_rate),
            updates=jnp.zeros((), jnp.int32),
            hyper=hyper,
        )

    def embed(state: PPOState, obs: Observation) -> Array:  # what a robot senses is all there is at deployment
        return cast(Array, normalize(state.normalizer.part("state"), obs["state"]))

    def act(state: PPOState, key: Array, obs: Observation) -> tuple[Array, PyTree]:
        params, embedding = state.params["actor"], embed(state, obs)
        if head.distribution is None:
            action, trace = head.sample(params, key, embedding)
            return action, {"trace": trace, "log_prob": log_prob_of(params, embedding, trace)}
        pi = head.distribution(params, embedding)
        trace = pi.sample(seed=key)
        return head.decode(trace), {"trace": trace, "log_prob": pi.log_prob(trace)}

    def mode(state: PPOState, obs: Observation) -> Array:
        return mode_of(state.params["actor"], embed(state, obs))

    def losses(params: PyTree, batch: dict[str, Any], hyper: PPOHyper) -> tuple[Array, Info]:
        embedding = batch["obs"]["state"]

        def judge(embedding, trace):  # one example -> log density, entropy
            if head.distribution is None:
                return log_prob_of(params["actor"], embedding, trace), None
            pi = head.distribution(params["actor"], embedding)
            return pi.log_prob(trace), pi.entropy()

        log_prob, entropy = jax.vmap(judge)(embedding, batch["trace"])
        surrogate = jnp.mean(clipped_surrogate(log_prob, batch["log_prob"], batch["advantage"], hyper.clip))
        value_error = jnp.mean(jnp.square(value_of(params["critic"], batch["obs"]) - batch["returns"]))
        log_ratio = log_prob - batch["log_prob"]
        info = {
            "loss/policy": surrogate,
            "loss/value": value_error,
            # Schulman's low-variance estimator, http://joschu.net/blog/kl-approx.html: the same for every head.
            "policy/kl": jnp.mean(jnp.expm1(log_ratio) - log_ratio),
            "policy/clip_fraction": jnp.mean(jnp.abs(jnp.exp(log_ratio) - 1) > hyper.clip),
        }
        total = surrogate + hyper.value * value_error
        if entropy is not None:
            info |= {"policy/entropy": jnp.mean(entropy)}
            total -= hyper.entropy * jnp.mean(entropy)
        if symmetry is not None and symmetry.loss:
            action = jax.vmap(mode_of, in_axes=(None, 0))(params["actor"], embedding)
            mirrored = jax.vmap(mode_of, in_axes=(None, 0))(params["actor"], batch["mirrored"])
            mirror_error = jnp.mean(jnp.square(mirrored - symmetry.action(jax.lax.stop_gradient(action))))
            info |= {"loss/mirror": mirror_error}
            total += hyper.symmetry * mirror_error
        return total, info

    def update(state: PPOState, key: Array, rollout: Rollout) -> tuple[PPOState, Info]:
        num_envs = rollout.reward.shape[1]
        if num_envs % config.num_minibatches:
            raise ValueError(
                f"{num_envs} environments do not divide into {config.num_minibatches} minibatches: "
                f"choose num_envs as a multiple of num_minibatches"
            )
        hyper = anneal(state.updates, state.hyper)
        obs = normalize(state.normalizer, rollout.obs)
        value = value_of(state.params["critic"], obs)
        next_value = value_of(state.params["critic"], normalize(state.normalizer, rollout.final_obs))
        advantage = gae(
            rollout.reward,
            value,
            next_value,
            rollout.terminated,
            rollout.truncated,
            hyper.discount,
            hyper.trace_decay,
        )
        returns = advantage + value
        batch = {
            "obs": obs,
            **rollout.extras,
            "advantage": (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8),
            "returns": returns,
        }
        if symmetry is not None and symmetry.loss:
            batch["mirrored"] = normalize(state.normalizer, symmetry.observation(rollout.obs))["state"]

        def descend(carry, columns):
            params, opt_state, learning_rate, moved = carry
            part = jax.tree.map(lambda x: x[:, columns].reshape((-1, *x.shape[2:])), batch)
            grads, info = jax.grad(losses, has_aux=True)(params, part, hyper)
            # Before the first step the policy is the one that acted: what it diverges by is rounding, and not all
            # machines round to 0.
            steered = adapt_learning_rate(learning_rate, info["policy/kl"], hyper)
            learning_rate = jnp.where(moved, steered, learning_rate)
            info |= {f"gradient/{name}": optax.tree.norm(tree) for name, tree in grads.items()}
            updates, opt_state = optimizer.update(
                clip_gradients(grads, hyper.max_grad_norm, config.clip_jointly), opt_state, params
            )
            params = optax.apply_updates(params, jax.tree.map(lambda u: -learning_rate * u, updates))
            return (params, opt_state, learning_rate, jnp.asarray(True)), info

        def epoch(carry, key):
            # Whole environments are dealt out: a permutation of B is far cheaper than one of T * B, and mixes as well.
            columns = jax.random.permutation(key, num_envs).reshape(config.num_minibatches, -1)
            return jax.lax.scan(descend, carry, columns)

        carry = (state.params, state.opt_state, state.learning_rate, jnp.asarray(False))
        carry, info = jax.lax.scan(epoch, carry, jax.random.split(key, config.num_epochs))
        params, opt_state, learning_rate, _ = carry
        info = jax.tree.map(jnp.mean, info)
        info["value/explained"] = 1 - jnp.var(returns - value) / (jnp.var(returns) + 1e-8)
        info["learning_rate"] = learning_rate
        if head.distribution is not None:
            info["policy/std"] = jnp.mean(head.distribution(params["actor"], obs["state"][0, 0]).stddev())
        # The moments move only now: during the rollout and all gradient steps the policy saw one normalisation, so the
        # first ratio is one.
        flat = jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), rollout.obs)
        seen = moments(without_outliers(state.normalizer, flat))
        if symmetry is not None:  # the mirror images were seen too, or normalising and reflecting would not commute
            seen = merge(seen, mirror_moments(seen, symmetry))
        normalizer = merge(state.normalizer, seen)
        state = dataclasses.replace(
            state,
            params=params,
            opt_state=opt_state,
            normalizer=normalizer,
            learning_rate=learning_rate,
            updates=state.updates + 1,
        )
        return state, info

    return Learner(init, act, update, mode)
