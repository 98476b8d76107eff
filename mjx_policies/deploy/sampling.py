"""A policy that draws, as it did in training, where the contract's deterministic values would be put in otherwise."""

from __future__ import annotations

import numpy as np

from mjx_policies.deploy.policy import ExportedPolicy, PolicyOutput, State


class SampledPolicy:
    """A `controller.ControlPolicy` with drawn noise. What is drawn follows from the seed and the count of steps.

    Args:
      policy: whose noise is drawn; it must not be used elsewhere.
      seed: of the draws.
    """

    def __init__(self, policy: ExportedPolicy, seed: int):
        self.contract = policy.contract
        self._policy = policy
        self._random = np.random.default_rng(seed)

    def initial_state(self) -> State:
        """The initial state of the policy."""
        return self._policy.initial_state()

    def step(self, observation: np.ndarray, state: State) -> PolicyOutput:
        """Runs one step with fresh noise."""
        noise = [self._draw(each.distribution, each.shape) for each in self.contract.noise]
        return self._policy.step(observation, state, noise)

    def _draw(self, distribution: str, shape: tuple[int, ...]) -> np.ndarray:
        match distribution:
            case "normal":
                drawn = self._random.standard_normal(shape)
            case "uniform":
                drawn = self._random.random(shape)
            case _:  # the contract knows these three
                drawn = self._random.gumbel(size=shape)
        return np.asarray(drawn, np.float32)
