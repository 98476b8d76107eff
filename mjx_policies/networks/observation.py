"""One embedding of all that is observed: vectors, pictures, what they were a moment ago, and what is wanted.

| observation | in each of O steps | becomes |
|---|---|---|
| vector | [D] | itself, or features of a perceptron |
| picture | [H, W, C], uint8 | points of a convolutional network, one for each camera |
| condition | [D] | a goal, or the embedding of an instruction by any model of the user's: its newest row alone |

The embedding goes to a head: `bc(ObservationEncoder(...), head)`. For pictures in [-1, 1], as the scales of a learner
make them, give `PIXELS` as their scale. Axes: O stacked observations, E embedding, F features of a step.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mjx_policies.networks.activations import elu
from mjx_policies.networks.cnn import CNN
from mjx_policies.networks.spatial_softmax import SpatialSoftmax
from mjx_policies.networks.transformer import Block, causal_mask
from mjx_policies.normalize import Scale
from mjx_policies.types import Array, Observation

PIXELS = Scale(np.float32(127.5), np.float32(127.5))
"""From uint8 to [-1, 1]."""

History = Literal["flat", "transformer"]


class ObservationEncoder(nn.Module):
    """Encodes each step, then the steps together.

    Attributes:
      size: E.
      history: steps side by side through a layer, which is enough for two or three; or a transformer over them, whose
        newest token is the embedding.
      conditions: names of what is wanted. It is seen beside the rest and moves the features of pictures (see `CNN`).
      features, strides: of the convolutions.
      points: number of feature points in each picture.
      width, num_heads, depth: of the transformer; `width` is also that of each step.
    """

    size: int = 128
    history: History = "flat"
    conditions: tuple[str, ...] = ()
    features: tuple[int, ...] = (32, 32, 32, 32)
    strides: tuple[int, ...] = (2, 1, 1, 1)
    points: int = 32
    width: int = 128
    num_heads: int = 4
    depth: int = 2

    @nn.compact
    def __call__(self, observation: Observation) -> Array:  # {name: [O, ...]} -> [E]
        """Computes the embedding of an observation."""
        length = _check(observation, self.conditions, self.history)
        wanted = None
        if self.conditions:
            newest = jnp.concatenate([observation[name][-1].ravel() for name in self.conditions])
            wanted = elu(nn.Dense(self.width, name="wanted")(newest))
        seen = []  # [O, F] each
        for name in sorted(observation.keys() - set(self.conditions)):
            rows = observation[name]
            if rows.ndim == 4:
                maps = CNN(self.features, self.strides, name=f"camera_{name}")(rows, wanted)
                rows = SpatialSoftmax(self.points, name=f"places_{name}")(maps)
            seen.append(rows.reshape(length, -1))
        if wanted is not None:
            seen.append(jnp.broadcast_to(wanted, (length, self.width)))
        steps = nn.Dense(self.width, name="step")(jnp.concatenate(seen, axis=1))  # [O, width]
        if self.history == "flat":
            return nn.Dense(self.size, name="embedding")(elu(steps).ravel())
        steps = steps + self.param("position", nn.initializers.normal(0.02), steps.shape)
        for _ in range(self.depth):
            steps = Block(self.width, self.num_heads)(steps, mask=causal_mask(length))
        return nn.Dense(self.size, name="embedding")(nn.LayerNorm()(steps[-1]))


def _check(observation: Observation, conditions: tuple[str, ...], history: str) -> int:
    """Checks the observation and counts its steps."""
    if history not in ("flat", "transformer"):
        raise ValueError(f"history is {history!r}, it must be 'flat' or 'transformer'")
    missing = set(conditions) - observation.keys()
    if missing:
        raise ValueError(f"no observation {', '.join(sorted(missing))}, only {', '.join(sorted(observation))}")
    if not observation.keys() - set(conditions):
        raise ValueError("all observations are conditions: nothing says where the robot is")
    lengths = {name: len(rows) for name, rows in observation.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"observations are stacked over different numbers of steps: {lengths}")
    for name, rows in observation.items():
        if rows.ndim not in (2, 4) or (rows.ndim == 4 and name in conditions):
            what = (
                "conditions are vectors [O, D]" if name in conditions else "vectors are [O, D], pictures [O, H, W, C]"
            )
            raise ValueError(f"observation {name!r} has the shape {rows.shape}; {what}")
    return next(iter(lengths.values()))
