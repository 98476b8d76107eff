"""Random numbers together with the key of the next ones, in one pass of the generator.

A state that draws in every step splits its key and draws from one half: two passes, each a loop that a CPU compiles
and runs on its own. Splitting into enough keys gives the numbers as well, for the words of fresh keys are what the
generator's output is made of. A key whose words are returned as numbers is given to nobody else.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mjx_policies.types import Array


def draw_words(key: Array, num: int, num_keys: int = 1) -> tuple[Array, ...]:  # -> [num] uint32, then the keys
    """Uniform 32-bit words, then `num_keys` keys for what comes later."""
    keys = jax.random.split(key, num_keys + (num + 1) // 2)
    # Two words of each: threefry's keys have no more, and the second half of an rbg key repeats the first.
    words = jax.random.key_data(keys[num_keys:])[:, :2].reshape(-1)[:num]
    return words, *(keys[i] for i in range(num_keys))


def draw_uniform(key: Array, num: int, num_keys: int = 1) -> tuple[Array, ...]:  # -> [num] float32, then the keys
    """Uniform numbers in [0, 1), multiples of 2**-24, then `num_keys` keys for what comes later.

    Example:
      >>> numbers, key = draw_uniform(jax.random.key(0), 5)
      >>> numbers.shape, bool((numbers >= 0).all() & (numbers < 1).all())
      ((5,), True)
    """
    words, *keys = draw_words(key, num, num_keys)
    return (words >> 8).astype(jnp.float32) * 2.0**-24, *keys
