import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.deploy.chunks import ChunkedPolicy, Inline
from mjx_policies.deploy.controller import Mode
from mjx_policies.deploy.robot import Reading
from mjx_policies.deploy.robots.franka import MAX_DAMPING, MAX_STIFFNESS
from mjx_policies.deploy.robots.franka_driving import START, franka_controller, franka_limits, late_steps
from mjx_policies.envs.franka.robot import OPENING
from mjx_policies.envs.franka.scenes import READY

_spec = importlib.util.spec_from_file_location("franka", Path(__file__).parents[1] / "franka.py")
franka = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(franka)

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
DT = 0.05
GAINS = slice(0, 7)  # of the arm; a hand has its own


def test_it_starts_where_episodes_do():
    np.testing.assert_array_equal(START, [*READY, OPENING])


class Bench:
    """An arm that is where it is told to be a period later."""

    def __init__(self, latency=0.0):
        policy = franka.policy()
        self.chunked = ChunkedPolicy(
            policy, mode="asynchronous", rest=START, late=late_steps(policy.contract, latency), executor=Inline()
        )
        names = policy.contract.joint_names
        goal = lambda: np.array([0.5, 0.0, 0.2])  # noqa: E731
        self.controller = franka_controller(self.chunked, names, goal, latency=latency, clock=lambda: 0.0)
        self.now, self.sequence, self.latency, self.pose = 100.0, 0, latency, START.copy()
        self.random = np.random.default_rng(0)

    def tick(self, request=None):
        self.sequence += 1
        values = {
            "joint_position": self.pose,
            "joint_velocity": 1e-3 * self.random.normal(size=8),
            "cube_position": np.array([0.5, 0.0, 0.02]),
            "cube_orientation": np.array([1.0, 0, 0, 0]),
        }
        reading = Reading(self.now - self.latency - 1e-3, self.sequence, values)
        output = self.controller.tick(self.now, reading, np.zeros(0), request)
        self.now += DT
        self.pose = output.target
        return output

    def run(self):
        self.tick("stand")
        for _ in range(41):
            self.tick()
        return self.tick("run")


@pytest.mark.parametrize("latency", [0.0, 0.05])
def test_targets_change_as_in_training(latency):
    """What the controller sends is where the action space's targets are at the end of each period."""
    bench, space = Bench(latency), franka.task().actions
    output = bench.run()
    assert output.mode is Mode.RUN and output.fault is None
    target = space.init(jnp.asarray(READY), jnp.asarray(OPENING))
    moved = 0.0
    for _ in range(12):
        target, _ = space.command(target, jnp.tile(output.action.astype(np.float32), (10, 1)))
        np.testing.assert_allclose(output.target, target, atol=1e-5)  # rad, added up in float32 in every substep
        moved = max(moved, float(np.abs(np.asarray(target) - START).max()))
        output = bench.tick()
    assert moved > 0.1


def test_the_arms_own_loop_accepts_every_gain():
    """`robots.franka` refuses more stiffness or damping than it was made for."""
    bench = Bench()
    outputs = [bench.tick(), bench.tick("stand"), bench.run(), bench.tick("damp")]
    assert [output.mode for output in outputs] == [Mode.IDLE, Mode.STAND, Mode.RUN, Mode.DAMP]
    for output in outputs:
        assert output.targets.stiffness[GAINS].max() <= MAX_STIFFNESS
        assert output.targets.damping[GAINS].max() <= MAX_DAMPING
    assert outputs[2].targets.stiffness.all() and not outputs[3].targets.stiffness.any()


@pytest.mark.parametrize("latency", [-0.01, 0.1, float("nan")])
def test_a_latency_that_leaves_nothing_to_act_on_is_refused(latency):
    with pytest.raises(ValueError, match=r"it must lie below 0\.1 s, beyond which this policy may not act"):
        franka_limits(franka.policy().contract, latency)
