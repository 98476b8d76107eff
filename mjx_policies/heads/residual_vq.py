"""Residual vector quantisation: an action or a chunk as a few small integers.

An encoder makes a latent, the first codebook takes the code nearest to it, the second the code nearest to what is then
left, and a decoder makes the chunk of their sum, Lee et al. 2024 (arXiv:2403.03181), section 4.1. Axes: N examples, Q
codebooks, C codes of each, Z latent, H horizon, A action.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mjx_policies.compiler import compiler_options
from mjx_policies.networks.apply import apply
from mjx_policies.networks.mlp import MLP
from mjx_policies.types import Array, PyTree

KEEP = 0.99  # of a code's running mean in each step, van den Oord et al. 2017 (arXiv:1711.00937), appendix A.1
DEAD = 0.1  # a code that wins less than this share of its due is put elsewhere
COMMITMENT = 0.25  # weight that draws the encoder to the codes, ibid. section 3.2


@struct.dataclass
class Codebook:
    """A fitted residual quantiser.

    Attributes:
      encoder, decoder: parameters of perceptrons.
      codes: [Q, C, Z].
      shape: of an action.
      hidden: widths of the perceptrons' hidden layers.
    """

    encoder: PyTree
    decoder: PyTree
    codes: Array
    shape: tuple[int, ...] = struct.field(pytree_node=False)
    hidden: tuple[int, ...] = struct.field(pytree_node=False)

    def encode(self, action: Array) -> Array:  # [(H), A] -> [Q] int32
        """The codes of an action."""
        indices, _ = quantize(self.codes, apply(self._networks()[0], self.encoder, action.ravel()))
        return indices

    def decode(self, one_hot: Array) -> Array:  # [Q, C] -> [(H), A]
        """The action of codes, each given by a row with a 1 in its place."""
        latent = jnp.einsum("qc,qcz->z", one_hot, self.codes)
        return cast(Array, apply(self._networks()[1], self.decoder, latent)).reshape(self.shape)

    def _networks(self) -> tuple[MLP, MLP]:
        return _networks(self.shape, self.hidden, self.codes.shape[-1])


def quantize(codes: Array, latent: Array) -> tuple[Array, Array]:  # [Q, C, Z], [Z] -> [Q], [Q, Z]
    """The nearest code of each codebook in turn, and what was left for it to express."""
    indices, residuals = [], []
    for book in codes:
        residuals.append(latent)
        nearest = jnp.argmin(jnp.sum((book - latent) ** 2, axis=-1))
        indices.append(nearest.astype(jnp.int32))
        latent = latent - book[nearest]
    return jnp.stack(indices), jnp.stack(residuals)


class _Fit(NamedTuple):
    networks: PyTree
    opt_state: optax.OptState
    codes: Array  # [Q, C, Z]
    wins: Array  # [Q, C] running share


def fit_codebook(
    key: Array,
    actions: Array,
    num_layers: int = 2,
    num_codes: int = 16,
    latent: int = 16,
    hidden: tuple[int, ...] = (128, 128),
    num_steps: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
) -> Codebook:
    """Learns a quantiser: absolute error of the decoded, encoder drawn to the codes, codes the means of what they win.

    Args:
      key: of initial weights and batches.
      actions: [N, A] or [N, H, A], as the head will see them; padding replaced by the last real step.
      num_layers: Q.
      num_codes: C.
      latent: Z.
      hidden: widths of the perceptrons' hidden layers.
      num_steps, batch_size, learning_rate: of Adam.

    Raises:
      ValueError: fewer actions than codes.
    """
    if len(actions) < num_codes:
        raise ValueError(f"{len(actions)} actions cannot fill {num_codes} codes: give more actions, or use fewer codes")
    actions = jnp.asarray(actions, jnp.float32)
    shape = actions.shape[1:]
    encoder, decoder = _networks(shape, hidden, latent)
    optimizer = optax.adam(learning_rate)

    def loss(networks: PyTree, codes: Array, batch: Array) -> tuple[Array, tuple[Array, Array]]:
        latents = apply(encoder, networks["encoder"], batch)  # [N, Z]
        indices, residuals = jax.vmap(quantize, in_axes=(None, 0))(codes, jax.lax.stop_gradient(latents))
        chosen = codes[jnp.arange(num_layers), indices].sum(axis=1)  # [N, Z]
        passed_on = latents + jax.lax.stop_gradient(chosen - latents)
        error = jnp.abs(apply(decoder, networks["decoder"], passed_on) - batch).mean()
        return error + COMMITMENT * ((latents - chosen) ** 2).mean(), (indices, residuals)

    def step(fit: _Fit, key: Array) -> tuple[_Fit, None]:
        key_batch, key_dead = jax.random.split(key)
        batch = actions[jax.random.randint(key_batch, (batch_size,), 0, len(actions))].reshape(batch_size, -1)
        grads, (indices, residuals) = jax.grad(loss, has_aux=True)(fit.networks, fit.codes, batch)
        steps, opt_state = optimizer.update(grads, fit.opt_state)
        won = jax.nn.one_hot(indices, num_codes)  # [N, Q, C]
        share, total = won.mean(axis=0), jnp.einsum("nqc,nqz->qcz", won, residuals) / batch_size
        wins = KEEP * fit.wins + (1 - KEEP) * share
        # wins * code is the running sum of what the code won.
        codes = (KEEP * fit.wins[..., None] * fit.codes + (1 - KEEP) * total) / jnp.maximum(wins, 1e-9)[..., None]
        dead = wins < DEAD / num_codes
        others = residuals[jax.random.randint(key_dead, (num_codes,), 0, batch_size)].swapaxes(0, 1)  # [Q, C, Z]
        codes = jnp.where(dead[..., None], others, codes)
        wins = jnp.where(dead, 1 / num_codes, wins)
        return _Fit(optax.apply_updates(fit.networks, steps), opt_state, codes, wins), None

    def run(key: Array) -> _Fit:
        key_encoder, key_decoder, key_steps = jax.random.split(key, 3)
        networks = {
            "encoder": encoder.init(key_encoder, jnp.zeros(math.prod(shape))),
            "decoder": decoder.init(key_decoder, jnp.zeros(latent)),
        }
        none = jnp.zeros((num_layers, num_codes))  # all codes are dead at first, and are put where data are
        fit = _Fit(networks, optimizer.init(networks), jnp.zeros((*none.shape, latent)), none)
        return jax.lax.scan(step, fit, jax.random.split(key_steps, num_steps))[0]

    fit = jax.jit(run, compiler_options=compiler_options())(key)
    return Codebook(fit.networks["encoder"], fit.networks["decoder"], fit.codes, shape, hidden)


def blank_codebook(
    shape: tuple[int, ...],
    num_layers: int = 2,
    num_codes: int = 16,
    latent: int = 16,
    hidden: tuple[int, ...] = (128, 128),
) -> Codebook:
    """Zeros in the place of what `fit_codebook` learns, to be filled from a checkpoint."""
    encoder, decoder = _networks(shape, hidden, latent)
    key = jax.random.key(0)
    kinds = jax.eval_shape(
        lambda: (encoder.init(key, jnp.zeros(math.prod(shape))), decoder.init(key, jnp.zeros(latent)))
    )
    encode, decode = jax.tree.map(lambda kind: jnp.zeros(kind.shape, kind.dtype), kinds)
    return Codebook(encode, decode, jnp.zeros((num_layers, num_codes, latent)), shape, hidden)


def _networks(shape: tuple[int, ...], hidden: tuple[int, ...], latent: int) -> tuple[MLP, MLP]:
    return MLP((*hidden, latent)), MLP((*hidden, math.prod(shape)))
