import dataclasses
import itertools
import math
import subprocess
import sys
import threading
from concurrent.futures import Executor, Future
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mjx_policies.deploy.chunks import Chunk, ChunkedPolicy, ChunkError, average, fade_in
from mjx_policies.deploy.contract import (
    Action,
    Contract,
    ContractError,
    ContractTerm,
    Golden,
    Joint,
    RobotModel,
    Timing,
    Training,
)

DT = 0.02
DEFAULT = [0.1, 0.9, -1.6]


def contract(horizon, action_type="joint_position"):
    return Contract(
        schema_version="1.0",
        robot=RobotModel("toy", "", "wxyz"),
        timing=Timing(DT, 0.005, 0.04, (0.0, 0.0)),
        joints=tuple(
            Joint(name, default, 0.0, 0.5, 20.0, 0.5, -3.0, 3.0, -3.0, 3.0, 20.0, 10.0)
            for name, default in zip(("hip", "thigh", "calf"), DEFAULT, strict=True)
        ),
        observation=(ContractTerm("step", 1, "1", "", 1.0, 0.0, 1, True, "first", 0.0, 0.0, True),),
        action=Action(action_type, 0.0, 20.0, horizon),
        state=(),
        noise=(),
        commands=(),
        gait=None,
        randomization=(),
        training=Training("toy", 0, 0, "", {}),
        golden=Golden({}, {}, "", 1e-5),
        graph_sha256="",
    )


class Planner:
    """Says with each action which step it was asked in, which of the chunk it is, and which plan of the run.

    The observation is the step; the state counts plans. A plan takes `seconds` of the time `now`.
    """

    def __init__(self, horizon, seconds=0.0, action_type="joint_position"):
        self.contract = contract(horizon, action_type)
        self.seconds, self.now = seconds, 0.0
        self.asked = []
        self.answer = self.plan

    def initial_state(self):
        return 0

    def step(self, observation, state):
        self.now += self.seconds
        self.asked.append(int(observation[0]))
        return self.answer(observation, state)

    def plan(self, observation, state):
        horizon = self.contract.action.horizon
        action = np.stack([np.full(horizon, observation[0]), np.arange(horizon), np.full(horizon, state)], axis=1)
        return SimpleNamespace(action=action.astype(np.float32), target=-action.astype(np.float32), state=state + 1)

    def clock(self):
        return self.now


class Delayed(Executor):
    """Returns what is submitted a number of steps later, of which `delays` has the next: at once if there is none."""

    def __init__(self):
        self.delays, self.jobs, self.shut = iter(()), [], False

    def submit(self, job, *arguments):
        assert not self.jobs, "more than one at a time"
        try:
            finish, outcome = Future.set_result, job(*arguments)
        except Exception as error:
            finish, outcome = Future.set_exception, error
        future = Future()
        self.jobs.append([next(self.delays, 0), future, finish, outcome])
        self._finish()
        return future

    def tick(self):
        """A step has passed."""
        for job in self.jobs:
            job[0] -= 1
        self._finish()

    def shutdown(self, wait=True, *, cancel_futures=False):
        assert wait
        self.shut = True

    def _finish(self):
        due, self.jobs = [job for job in self.jobs if job[0] <= 0], [job for job in self.jobs if job[0] > 0]
        for _, future, finish, outcome in due:
            finish(future, outcome)


def asynchronous(horizon, seconds=0.001, planner=None, **more):
    """A policy, its executor and its planner, in which nothing is left of the warm-up."""
    planner = planner or Planner(horizon, seconds)
    executor = Delayed()
    policy = ChunkedPolicy(planner, mode="asynchronous", executor=executor, clock=planner.clock, **more)
    planner.asked.clear()
    return policy, executor, planner


def steps(policy, count, state=None, executor=None, first=0):
    """So many steps of a run, one after another."""
    state = policy.initial_state() if state is None else state
    found = []
    for step in range(first, first + count):
        if executor is not None and step > 0:
            executor.tick()
        found.append(policy.step(np.array([step], np.float32), state))
        state = found[-1].state
    return found


def actions(found):  # -> [T, 3]
    return np.array([step.action for step in found])


def sentence(error):
    text = str(error.value)
    assert "\n" not in text and not text.endswith(".")  # the controller ends it
    return text


@pytest.mark.parametrize("n_action_steps", [1, 3, 4, 7])
def test_a_receding_horizon_plans_after_every_few_steps(n_action_steps):
    planner = Planner(7)
    policy = ChunkedPolicy(planner, n_action_steps=n_action_steps, clock=planner.clock)
    planner.asked.clear()
    found = steps(policy, 40)
    assert planner.asked == list(range(0, 40, n_action_steps))
    step = np.arange(40)
    expected = np.stack(
        [step // n_action_steps * n_action_steps, step % n_action_steps, step // n_action_steps], axis=1
    )
    np.testing.assert_array_equal(actions(found), expected)
    np.testing.assert_array_equal([step.target for step in found], -expected)
    assert not any(step.held for step in found) and found[0].action.dtype == np.float32
    assert (
        policy.statistics.steps == 40 and policy.statistics.held == 0 and policy.statistics.plans == len(planner.asked)
    )
    assert policy.contract == contract(1)


def test_without_further_orders_a_chunk_is_executed_to_its_end():
    planner = Planner(5)
    policy = ChunkedPolicy(planner)
    planner.asked.clear()
    steps(policy, 11)
    assert planner.asked == [0, 5, 10]


def wavy(planner, seed=0):
    """Makes it plan smooth nonsense that differs from plan to plan."""
    horizon = planner.contract.action.horizon

    def plan(observation, state):
        random = np.random.default_rng([seed, int(observation[0])])
        action = random.normal(size=(horizon, 3)).astype(np.float32)
        return SimpleNamespace(action=action, target=2 * action + 1, state=state + 1)

    planner.answer = plan
    return plan


@pytest.mark.parametrize("m", [0.0, 0.01, 0.5, -0.3])
@pytest.mark.parametrize("n_action_steps", [1, 2, 3])
def test_temporal_ensembling_equals_a_double_loop(n_action_steps, m):
    horizon, count = 7, 30
    planner = Planner(horizon)
    plan = wavy(planner)
    policy = ChunkedPolicy(planner, n_action_steps=n_action_steps, ensemble=m)
    found = steps(policy, count)
    chunks = {asked: plan(np.array([asked]), 0).action for asked in range(0, count, n_action_steps)}
    for step in range(count):
        total, weights, rank = np.zeros(3), 0.0, 0
        for asked in range(step + 1):  # the oldest first
            if asked in chunks and step - asked < horizon:
                weight = math.exp(-m * rank)
                total += weight * chunks[asked][step - asked]
                weights += weight
                rank += 1
        assert rank == min(step // n_action_steps, (horizon - 1 - step % n_action_steps) // n_action_steps) + 1
        np.testing.assert_allclose(found[step].action, total / weights, atol=1e-6)
        np.testing.assert_allclose(found[step].target, 2 * total / weights + 1, atol=1e-6)


@pytest.mark.parametrize("m", [0.0, 0.01, 0.7])
@pytest.mark.parametrize("more", [{}, {"mode": "asynchronous", "executor": Delayed(), "refill": 0.9}])
def test_chunks_that_agree_are_left_as_they_are(more, m):
    """Bit by bit."""
    planner = Planner(9)
    curve = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)

    def plan(observation, state):
        rows = curve[int(observation[0]) :][:9]
        return SimpleNamespace(action=rows, target=rows / 3, state=state)

    planner.answer = plan
    for kind in ({"ensemble": m}, {"blend": 4}):
        policy = ChunkedPolicy(planner, clock=planner.clock, **kind, **(more or {"n_action_steps": 2}))
        np.testing.assert_array_equal(actions(steps(policy, 50)), curve[:50])


def test_an_average_weighs_the_oldest_most():
    chunks = (Chunk(0, np.zeros((3, 1)), np.zeros((3, 1))), Chunk(1, np.ones((3, 1)), 2 * np.ones((3, 1))))
    action, target = average(chunks, 2, 0.1)
    share = math.exp(-0.1) / (1 + math.exp(-0.1))
    assert share < 0.5 and action == pytest.approx(share) and target == pytest.approx(2 * share)
    assert average(chunks, 2, 50.0)[0] == pytest.approx(0) and average(chunks, 2, -50.0)[0] == pytest.approx(1)


def test_fading_in():
    old, new = (
        Chunk(0, np.zeros((6, 1)), np.zeros((6, 1))),
        Chunk(2, np.ones((6, 1), np.float32), 4 * np.ones((6, 1), np.float32)),
    )
    faded = fade_in(old, new, 3)
    np.testing.assert_allclose(faded.action[:, 0], [0.25, 0.5, 0.75, 1, 1, 1])
    np.testing.assert_allclose(faded.target[:, 0], [1, 2, 3, 4, 4, 4])
    assert faded.start == 2 and faded.action.dtype == np.float32
    np.testing.assert_allclose(fade_in(old, new, 9).action[:, 0], [0.1, 0.2, 0.3, 0.4, 1, 1])  # the old one ends
    np.testing.assert_array_equal(fade_in(old, new, 0).action, new.action)
    np.testing.assert_array_equal(fade_in(old, dataclasses.replace(new, start=8), 3).action, new.action)


def test_blending_bounds_the_jump_from_plan_to_plan():
    def largest_jump(**more):
        planner = Planner(12)
        level = {0: 0.0, 4: 1.0}

        def plan(observation, state):
            rows = np.full((12, 3), level[int(observation[0])])
            return SimpleNamespace(action=rows, target=rows, state=state)

        planner.answer = plan
        return np.abs(np.diff(actions(steps(ChunkedPolicy(planner, n_action_steps=4, **more), 8)), axis=0)).max()

    assert largest_jump() == 1.0
    assert largest_jump(blend=3) == pytest.approx(0.25)


@settings(deadline=None)
@given(horizon=st.integers(2, 20), refill=st.floats(0.01, 1.0), seed=st.integers(0, 9))
def test_without_delay_asynchronous_equals_synchronous(horizon, refill, seed):
    left = math.floor(refill * horizon + 1e-9)
    assume(left > 0)  # else it is refused
    for kind in ({}, {"ensemble": 0.1}, {"blend": 2}):
        planners = [Planner(horizon) for _ in range(2)]
        for planner in planners:
            wavy(planner, seed)
        later, _, planner = asynchronous(horizon, planner=planners[0], refill=refill, **kind)
        now = ChunkedPolicy(planners[1], n_action_steps=max(1, horizon - left), clock=planners[1].clock, **kind)
        planners[1].asked.clear()
        np.testing.assert_array_equal(actions(steps(later, 50)), actions(steps(now, 50)))
        assert planner.asked == planners[1].asked
        assert later.statistics == now.statistics


@settings(deadline=None)
@given(data=st.data(), horizon=st.integers(2, 20), refill=st.floats(0.05, 1.0), hold=st.integers(0, 3))
def test_every_action_is_the_one_for_its_step(data, horizon, refill, hold):
    """Whatever the delays: within what was measured nothing is ever held but at the start."""
    slowest = min(horizon // 2, math.floor(refill * horizon + 1e-9))  # steps
    assume(slowest > 0)
    seconds = (slowest - 0.5) * DT / 1.5  # of which the margin makes half a step less than `slowest`
    policy, executor, planner = asynchronous(horizon, seconds, refill=refill, hold_periods=hold)
    beyond = data.draw(st.integers(0, 4))
    draw = st.integers(0, slowest + beyond)
    executor.delays = iter(data.draw(st.lists(draw, min_size=60, max_size=60)))
    state, found = policy.initial_state(), []
    for step in range(60):
        executor.tick()
        try:
            found.append(policy.step(np.array([step], np.float32), state))
        except ChunkError as error:
            assert beyond and "no plan arrived in time" in str(error)
            held = [step.held for step in found]
            allowed = hold if not all(held) else hold + slowest
            assert all(held[len(held) - allowed :]) and len(held) >= allowed
            break
        state = found[-1].state
    served = [(step, at.action) for step, at in enumerate(found) if not at.held]
    for step, (asked, index, _) in served:
        assert asked + index == step and 0 <= index < horizon
    assert all(a[1][0] <= b[1][0] for a, b in itertools.pairwise(served))  # never back to an older plan
    for before, after in itertools.pairwise(found):
        if after.held:
            np.testing.assert_array_equal(after.action, before.action)
            np.testing.assert_array_equal(after.target, before.target)
    if not beyond:
        assert len(found) == 60
        first = served[0][0]
        assert first <= slowest and not any(step.held for step in found[first:])
    assert policy.statistics.held == sum(step.held for step in found)
    assert planner.asked == sorted(set(planner.asked))


def test_a_late_chunk_loses_the_actions_that_are_past():
    policy, executor, planner = asynchronous(10, refill=0.5)
    executor.delays = iter([0, 3, 0])
    found = steps(policy, 10, executor=executor)
    # Asked for in step 5, with 5 of 10 left; there in step 8.
    expected = [(0, j, 0) for j in range(8)] + [(5, 3, 1), (5, 4, 1)]
    np.testing.assert_array_equal(actions(found), expected)
    assert planner.asked == [0, 5]


def test_asynchronous_averages_whatever_has_arrived():
    policy, executor, _ = asynchronous(6, refill=1.0, ensemble=0.2)
    executor.delays = iter([1, 2, 1, 2])
    found = steps(policy, 5, executor=executor)
    # Asked for in steps 0, 1, 3; there in 1, 3, 4.
    weights = np.exp([0, -0.2, -0.4])
    for step, asked in [(1, [0]), (2, [0]), (3, [0, 1]), (4, [0, 1, 3])]:
        mean = np.average(asked, weights=weights[: len(asked)])
        np.testing.assert_allclose(found[step].action[:2], [mean, step - mean], rtol=1e-6)


def test_a_run_waits_for_its_first_plan_in_the_default_pose():
    policy, executor, _ = asynchronous(10, seconds=0.03, hold_periods=1)  # 3 steps with the margin
    executor.delays = iter([3])
    found = steps(policy, 5, executor=executor)
    assert [step.held for step in found] == [True, True, True, False, False]
    for step in found[:3]:
        np.testing.assert_array_equal(step.action, np.zeros(3))
        np.testing.assert_allclose(step.target, DEFAULT)
    assert found[3].action.tolist() == [0, 3, 0]
    executor.delays = iter([99])
    with pytest.raises(ChunkError, match="was repeated 4 times, the limit: free the computer"):
        steps(policy, 9, executor=executor)


def test_when_the_actions_run_out_the_last_holds_for_a_moment_and_then_it_is_an_error():
    policy, executor, _ = asynchronous(6, refill=0.5, hold_periods=2)
    executor.delays = iter([0, 5, 99])
    found = steps(policy, 11, executor=executor)
    # Asked for in step 3, with 3 left, until step 5; there in step 8, with an action for that step alone.
    assert [step.held for step in found] == [False] * 6 + [True, True, False, True, True]
    assert actions(found)[5:].tolist() == [[0, 5, 0]] * 3 + [[3, 5, 1]] * 3
    executor.tick()
    with pytest.raises(ChunkError, match="was repeated 2 times, the limit: free the computer") as error:
        steps(policy, 1, found[-1].state, first=11)
    sentence(error)
    assert policy.statistics.held == 4


def test_a_chunk_that_comes_when_all_of_it_is_past_is_not_used():
    policy, executor, planner = asynchronous(4, refill=0.5, hold_periods=9)
    executor.delays = iter([0, 6, 0])
    found = steps(policy, 9, executor=executor)
    # Asked for in step 2 for 2 to 5, there in step 8, when another one is asked for.
    assert [step.held for step in found] == [False] * 4 + [True] * 4 + [False]
    assert found[8].action.tolist() == [8, 0, 2]
    assert planner.asked == [0, 2, 8] and policy.statistics.plans == 3


def fail(observation, state):
    raise ZeroDivisionError("out of\nluck.")


@pytest.mark.parametrize("delay", [0, 2])
def test_an_error_while_planning_is_that_of_the_next_step(delay):
    policy, executor, planner = asynchronous(8, hold_periods=0)
    before = steps(policy, 4, executor=executor)
    planner.answer = fail
    executor.delays = iter([delay])
    before += steps(policy, delay, before[-1].state, executor, first=4)
    executor.tick()
    with pytest.raises(ChunkError, match="planning failed: ZeroDivisionError: out of luck") as error:
        policy.step(np.array([4 + delay], np.float32), before[-1].state)
    assert "luck" in sentence(error) and isinstance(error.value.__cause__, ZeroDivisionError)
    planner.answer = planner.plan
    assert steps(policy, 3)[-1].action.tolist() == [0, 2, 0]  # it was said once


def test_an_error_in_synchronous_mode_is_that_of_the_step():
    planner = Planner(3)
    policy = ChunkedPolicy(planner)
    planner.answer = fail
    with pytest.raises(ChunkError, match="planning failed: ZeroDivisionError") as error:
        steps(policy, 1)
    assert isinstance(error.value.__cause__, ZeroDivisionError)


BAD = {
    "none": (lambda good: None, "action must be numbers .4, 3., not NoneType"),
    "one action": (lambda good: good[0], r"not float32 \[3\]: export"),
    "shorter": (lambda good: good[:2], r"not float32 \[2, 3\]"),
    "whole numbers": (lambda good: good.astype(int), "not int64"),
    "nan at the end": (lambda good: np.where(np.arange(4)[:, None] < 3, good, np.nan), r"action\[3, 0\] = nan"),
    "infinite": (lambda good: good / np.float32(0), "must be finite"),
}


@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")
@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_a_bad_plan_is_refused_as_a_whole(mode, spoil, said):
    planner = Planner(4)
    executor = {"executor": Delayed()} if mode == "asynchronous" else {}
    policy = ChunkedPolicy(planner, mode=mode, clock=planner.clock, **executor)
    good = planner.plan(np.zeros(1), 0)
    planner.answer = lambda observation, state: SimpleNamespace(
        action=spoil(good.action), target=good.target, state=state
    )
    with pytest.raises(ChunkError, match=said) as error:
        steps(policy, 1)
    sentence(error)
    planner.answer = lambda observation, state: SimpleNamespace(
        action=good.action, target=spoil(good.target), state=state
    )
    with pytest.raises(ChunkError, match="target"):
        steps(policy, 1)


@pytest.mark.parametrize("delay", range(5))
def test_a_new_run_never_does_what_the_old_one_planned(delay):
    policy, executor, planner = asynchronous(10, refill=0.5, seconds=0.05, hold_periods=0)  # 4 steps with the margin
    old = steps(policy, 5, first=100)  # that action 0 of a plan tells the runs apart
    executor.delays = iter([delay, delay])
    steps(policy, 1, old[-1].state, first=105)
    assert planner.asked == [100, 105]
    found = steps(policy, 15, executor=executor)
    served = [(step, at.action) for step, at in enumerate(found) if not at.held]
    assert served[0][0] <= 2 * delay and len(served) == 15 - served[0][0]
    for step, (asked, index, plan) in served:
        assert asked + index == step and plan < 3
    for at in found[: served[0][0]]:
        np.testing.assert_allclose(at.target, DEFAULT)


def test_an_error_of_the_old_run_is_not_lost():
    policy, executor, planner = asynchronous(10, refill=0.5)
    before = steps(policy, 5, executor=executor)
    planner.answer = fail
    executor.delays = iter([2])
    steps(policy, 1, before[-1].state, executor, first=5)
    planner.answer = planner.plan
    held = steps(policy, 2, executor=executor)
    assert all(step.held for step in held)
    executor.tick()
    with pytest.raises(ChunkError, match="ZeroDivisionError"):
        steps(policy, 1, held[-1].state, first=2)
    assert not steps(policy, 1)[0].held


def test_a_state_can_be_stepped_again():
    for policy in (ChunkedPolicy(Planner(5), n_action_steps=2), asynchronous(5)[0]):
        state = steps(policy, 7)[-1].state
        first, second = (actions(steps(policy, 9, state, first=7)) for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_what_comes_out_belongs_to_the_caller():
    policy = ChunkedPolicy(Planner(4))
    found = steps(policy, 1)
    state = found[0].state
    found[0].action[:] = found[0].target[:] = math.nan
    assert np.isfinite(state.action).all() and np.isfinite(state.target).all()
    found = steps(policy, 1, state, first=1)
    assert found[0].action.tolist() == [0, 1, 0]


def test_a_plan_is_made_from_a_copy_of_the_observation():
    policy, executor, _ = asynchronous(8, seconds=0.03)
    executor.delays = iter([2])
    observation, state = np.zeros(1, np.float32), policy.initial_state()
    for _ in range(3):
        step = policy.step(observation, state)
        state, observation[0] = step.state, 99
        executor.tick()
    assert step.action.tolist() == [0, 2, 0]


def refusal(kind, horizon, seconds=0.0, action_type="joint_position", **more):
    planner = Planner(horizon, seconds, action_type)
    with pytest.raises(kind) as error:
        ChunkedPolicy(planner, clock=planner.clock, **more)
    return sentence(error)


def test_planning_that_is_too_slow_for_the_refill_is_refused():
    said = refusal(ChunkError, 50, 0.12, mode="asynchronous", refill=0.15)
    assert "a plan may take 180.0 ms, 1.5 times the slowest of 5 calls" in said
    assert "refill 0.15 asks for it when 7 of 50 actions are left, which last 140.0 ms" in said
    assert said.endswith("use a refill of 0.2 or more")  # 10 steps are the fewest that last longer than 180 ms
    assert asynchronous(50, 0.12, refill=0.2)[0].latency == pytest.approx(0.18)
    assert "refill of 0.2" in refusal(ChunkError, 50, 0.12, mode="asynchronous", refill=0.199)


def test_planning_that_no_refill_is_enough_for_is_refused():
    said = refusal(ChunkError, 8, 0.06, mode="asynchronous", refill=1.0)
    assert "90.0 ms" in said and "more than half of what a chunk of 8 actions lasts, 160.0 ms" in said
    assert said.endswith("export 10 actions or more")
    asynchronous(10, 0.06, refill=0.5)


@settings(deadline=None)
@given(horizon=st.integers(2, 100), seconds=st.floats(0.0, 1.0), refill=st.floats(0.001, 1.0))
def test_the_refill_that_is_recommended_would_do(horizon, seconds, refill):
    try:
        policy, _, _ = asynchronous(horizon, seconds, refill=refill)
    except ChunkError as error:
        if "use a refill of" in str(error):
            smallest = float(str(error).split("use a refill of ")[1].split(" ")[0])
            assert smallest > refill
            asynchronous(horizon, seconds, refill=smallest)
            if (less := smallest - 0.001 - 1e-6) > 0:
                with pytest.raises(ChunkError):
                    asynchronous(horizon, seconds, refill=less)
        else:
            more = int(str(error).split("export ")[1].split(" ")[0])
            assert more > horizon
            asynchronous(more, seconds, refill=0.5)
    else:
        assert refill * horizon * DT > policy.latency - 1e-9


def test_the_slowest_try_counts():
    planner = Planner(10)
    times = iter([0.0, 0.01, 0.0, 0.05, 0.0])

    def plan(observation, state):
        planner.now += next(times)
        return planner.plan(observation, state)

    planner.answer = plan
    policy = ChunkedPolicy(planner, mode="asynchronous", executor=Delayed(), clock=planner.clock)
    assert policy.latency == pytest.approx(0.075)


def test_a_plan_is_for_when_its_observation_was_measured():
    """One asked for in step s of an observation two steps late is for the steps from s - 2 on."""
    policy, executor, planner = asynchronous(10, late=2, refill=0.5)
    executor.delays = itertools.repeat(1)
    found = steps(policy, 16, executor=executor)
    assert planner.asked == [0, 3, 6, 9, 12, 15]
    step, place = actions(found)[1:, 0], actions(found)[1:, 1]  # of the asking, and among the actions of the plan
    np.testing.assert_array_equal(place, np.arange(1, 16) - step + 2)


def test_until_the_first_plan_it_rests_where_it_was_told():
    rest = np.array([0.5, -0.5, 1.0])
    policy, executor, _ = asynchronous(10, rest=rest)
    executor.delays = iter([1])
    first, second = steps(policy, 2, executor=executor)
    assert first.held and not second.held
    np.testing.assert_array_equal(first.target, rest.astype(np.float32))
    assert not first.action.any()


ARGUMENTS = {
    "mode": ({"mode": "parallel"}, "mode is 'parallel', it must be synchronous or asynchronous"),
    "refill without a thread": ({"refill": 0.5}, "refill and executor are for the asynchronous mode"),
    "n_action_steps with a thread": (
        {"mode": "asynchronous", "n_action_steps": 2},
        "n_action_steps is for the synchronous mode",
    ),
    "no steps": ({"n_action_steps": 0}, "n_action_steps is 0, it must be a whole number, 1 to 6"),
    "too many steps": ({"n_action_steps": 7}, "n_action_steps is 7"),
    "half a step": ({"n_action_steps": 2.5}, "n_action_steps is 2.5"),
    "truth": ({"n_action_steps": True}, "n_action_steps is True"),
    "no refill": ({"mode": "asynchronous", "refill": 0.0}, "refill is 0.0, it must be above 0 and at most 1"),
    "refill beyond": ({"mode": "asynchronous", "refill": 1.1}, "at most 1"),
    "refill nan": ({"mode": "asynchronous", "refill": math.nan}, "refill is nan, it must be a finite number"),
    "ensemble nan": ({"n_action_steps": 1, "ensemble": math.nan}, "ensemble is nan"),
    "ensemble beyond": ({"n_action_steps": 1, "ensemble": 1e9}, "within ±50"),
    "nothing to average": ({"ensemble": 0.1}, "never overlap: give an n_action_steps below 6"),
    "nothing to blend": ({"blend": 2}, "never overlap"),
    "both": ({"n_action_steps": 1, "ensemble": 0.1, "blend": 2}, "give either ensemble or blend"),
    "blend": ({"n_action_steps": 1, "blend": -1}, "blend is -1"),
    "late without a thread": ({"late": 1}, "late is for the asynchronous mode"),
    "late beyond": ({"mode": "asynchronous", "late": 6}, "late is 6, it must be a whole number, 0 to 5"),
    "rest": ({"rest": np.zeros(2)}, "it must be 3 finite numbers"),
    "rest nan": ({"rest": np.full(3, np.nan)}, "it must be 3 finite numbers"),
    "hold": ({"hold_periods": -1}, "hold_periods is -1, it must be a whole number, 0 or more"),
}


@pytest.mark.parametrize(("more", "said"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_bad_arguments_are_refused(more, said):
    assert said in refusal(ValueError, 6, **more)


def test_policies_that_do_not_fit_are_refused():
    assert "one action a step" in refusal(ContractError, 1)
    said = refusal(ContractError, 6, action_type="joint_torque", mode="asynchronous")
    assert "joint_torque targets cannot be held" in said
    for mode in ("synchronous", "asynchronous"):
        planner = Planner(6)
        planner.answer = fail
        with pytest.raises(ChunkError, match="cannot plan: ZeroDivisionError"):
            ChunkedPolicy(planner, mode=mode)
        planner.answer = lambda observation, state: SimpleNamespace(action=np.zeros(3), target=np.zeros(3), state=0)
        with pytest.raises(ChunkError, match="export the policy again"):
            ChunkedPolicy(planner, mode=mode)
    assert not threads()


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("plan")]


class Gate:
    """Lets a plan wait, in a real thread, until it is told to go on."""

    def __init__(self, horizon=6):
        self.planner = Planner(horizon)
        self.open, self.entered, self.names = threading.Event(), threading.Event(), set()
        self.open.set()
        plan = self.planner.answer

        def wait(observation, state):
            self.entered.set()
            assert self.open.wait(10)
            self.names.add(threading.current_thread().name)
            return plan(observation, state)

        self.planner.answer = wait
        self.policy = ChunkedPolicy(self.planner, mode="asynchronous", clock=self.planner.clock, hold_periods=3)

    def step(self, number, state):
        return self.policy.step(np.array([number], np.float32), state)


def test_in_a_thread_of_its_own():
    gate = Gate()
    with gate.policy:
        gate.open.clear()
        step = gate.step(0, gate.policy.initial_state())  # returns although the plan waits
        assert step.held and len(threads()) == 1
        gate.open.set()
        step.state.pending.future.result(10)
        step = gate.step(1, step.state)
        assert step.action.tolist() == [0, 1, 0] and not step.held
        gate.planner.answer = fail
        step = gate.step(2, step.state)
        step = gate.step(3, step.state)
        assert isinstance(step.state.pending.future.exception(10), ZeroDivisionError)
        with pytest.raises(ChunkError, match="ZeroDivisionError") as error:
            gate.step(4, step.state)
        assert isinstance(error.value.__cause__, ZeroDivisionError)
        assert threading.main_thread().name not in gate.names and len(gate.names) == 1
    assert not threads()


def test_closing_waits_for_the_thread():
    gate = Gate()
    gate.open.clear()
    gate.entered.clear()
    step = gate.step(0, gate.policy.initial_state())
    assert gate.entered.wait(10)  # a plan that has not begun would be dropped, and nothing waited for
    closing = threading.Thread(target=gate.policy.close)
    closing.start()
    assert threads() and closing.is_alive()
    gate.open.set()
    closing.join(10)
    assert not closing.is_alive() and not threads()
    gate.policy.close()
    with pytest.raises(ChunkError, match="was closed: make another one"):
        gate.step(1, step.state)


def test_an_executor_that_was_given_is_shut_down():
    policy, executor, _ = asynchronous(6)
    policy.close()
    assert executor.shut


def test_importing_it_needs_no_other_library_than_numpy():
    heavy = "jax flax onnx onnxruntime mujoco"
    code = f"import sys, mjx_policies.deploy.chunks; assert not set('{heavy}'.split()) & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
