"""A head's random numbers as an input of the graph."""

from __future__ import annotations

from mjx_policies.deploy import contract
from mjx_policies.heads.base import Noise

STILL = {"normal": 0.0, "uniform": 0.5, "gumbel": 0.0}
"""What stands for the numbers where no randomness is wanted. With Gumbel's at 0 the likeliest class is taken."""


def noise_inputs(noise: Noise | None, name: str = "noise") -> tuple[contract.NoiseInput, ...]:
    """The noise inputs of a graph; none for a head without noise, whose `mode` is exported."""
    if noise is None:
        return ()
    return (contract.NoiseInput(name, noise.shape, noise.distribution, STILL[noise.distribution]),)
