"""An exported policy on a simulated arm from standing up to the verdict, in lock-step and for a moment in real time."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from mjx_policies.deploy.robots.franka_driving import START
from mjx_policies.deploy.safety import Fault
from mjx_policies.deploy.sampling import SampledPolicy
from mjx_policies.deploy.simulation.arm_episode import InitialState, Transport, overloaded, run_episode

_spec = importlib.util.spec_from_file_location("franka", Path(__file__).parents[1] / "franka.py")
franka = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(franka)

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
CUBE = np.array([0.55, 0.1, 0.02])
TASK = Transport("cube", 0.025, 0.5, ((-0.2, -0.6), (0.9, 0.6)), 1.5)
LOCK_STEP = {"latency": 0.05, "real_time": False}


def start(cube=CUBE, goal=(0.5, 0.0, 0.3)):
    return InitialState(np.array([*START, START[-1], *cube, 1, 0, 0, 0]), np.array(goal))


def run(task=TASK, begin=None, driving=LOCK_STEP, seed=0):
    model = franka.task().physics.model
    return run_episode(franka.exported(), model, task, begin or start(), seed=seed, **driving)


def test_lock_step_is_deterministic():
    first, second, other = run(), run(), run(seed=1)
    np.testing.assert_array_equal(first.qpos, second.qpos)
    assert first.qpos.shape == other.qpos.shape and (first.qpos != other.qpos).any(), "the seed is that of the noise"
    assert not first.success and first.seconds == pytest.approx(1.5) and len(first.qpos) == 30 and not first.fault
    assert first.age.min() >= 0.05 - 1e-9 and first.age.max() <= 0.055 + 1e-9
    assert first.loop.missed == first.held == first.chunks.held == 0 and first.skipped == 0
    # 16 actions, of which one is past when it arrives; the next is asked for when 8 are left.
    assert first.chunks.steps == 31 and first.chunks.plans == len(first.plan_seconds) == 5
    np.testing.assert_allclose(first.qpos[0, :7], START[:7], atol=0.1)
    assert np.abs(first.qpos[-1, :7] - START[:7]).max() > 0.1, "it moved"


def test_without_noise_every_seed_does_the_same():
    still = LOCK_STEP | {"sample_actions": False}
    np.testing.assert_array_equal(run(driving=still).qpos, run(driving=still, seed=1).qpos)


def test_a_cube_that_stays_at_the_goal_is_a_success_after_half_a_second():
    found = run(begin=start(goal=CUBE))
    assert found.success and found.seconds == pytest.approx(0.5) and len(found.qpos) == 10
    near, far = (run(begin=start(goal=(*CUBE[:2], CUBE[2] + up))) for up in (0.024, 0.026))
    assert near.success and not far.success


def test_a_cube_that_has_left_the_table_ends_the_episode():
    found = run(begin=start(cube=(0.55, 0.601, 0.02)))
    assert not found.success and len(found.qpos) == 1


def test_a_fault_ends_the_episode():
    found = run(begin=start(goal=np.full(3, np.nan)))
    assert "must be finite" in found.fault and not found.success and len(found.qpos) == 0


def test_in_real_time_nothing_waits_for_a_plan():
    found = run(dataclasses.replace(TASK, seconds=0.5), driving={"latency": 0.05})
    assert np.all(found.age >= 0.05)
    if found.fault:  # of a computer that others keep busy, which is what it must say
        assert re.search("ree the computer|no plan arrived in time", found.fault)
    else:
        assert found.seconds >= 0.475 and found.chunks.plans >= 1


def test_what_is_late_on_a_busy_computer_is_no_fault_of_a_sensor():
    """The loop and the simulation share it, and the simulated link has no other way to be late."""
    late = Fault("age", "the newest reading is 260.1 ms old, the limit is 150.0 ms: check the link to the robot.")
    told = overloaded(late, 7, 0.25)
    assert "the computer was too slow for real time" in told and "link" not in told
    assert overloaded(late, 0, 0.25) == told and overloaded(late, 0, 0.0) == ""
    assert overloaded(Fault("tilt", "it leans."), 7, 0.25) == overloaded(None, 7, 0.25) == ""


class Recorder:
    """A policy that says what it was given."""

    def __init__(self, contract):
        self.contract, self.seen = contract, []

    def initial_state(self):
        return ()

    def step(self, observation, state, noise):
        self.seen.append(noise)


@pytest.mark.parametrize(
    ("distribution", "mean", "deviation"), [("normal", 0, 1), ("uniform", 0.5, 12**-0.5), ("gumbel", 0.5772, 1.2825)]
)
def test_noise_is_drawn_as_the_contract_says(distribution, mean, deviation):
    contract = franka.contract()
    noises = (dataclasses.replace(contract.noise[0], distribution=distribution, shape=(200, 100)),)
    inner = Recorder(dataclasses.replace(contract, noise=noises))
    for seed in (0, 0, 1):
        SampledPolicy(inner, seed).step(np.zeros(1, np.float32), ())
    first, again, other = (noise for (noise,) in inner.seen)
    assert first.dtype == np.float32 and first.shape == (200, 100)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.mean() == pytest.approx(mean, abs=0.05) and first.std() == pytest.approx(deviation, abs=0.05)
