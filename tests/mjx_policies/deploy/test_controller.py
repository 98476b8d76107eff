import dataclasses
import math
from concurrent.futures import Executor, Future
from types import SimpleNamespace

import numpy as np
import pytest

from mjx_policies.deploy.chunks import ChunkedPolicy
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
from mjx_policies.deploy.controller import Controller, Mode, Stance, joint_maps
from mjx_policies.deploy.robot import Reading
from mjx_policies.deploy.safety import FAULTS, limits_of
from mjx_policies.spec import CommandRange

NAMES = ("hip", "thigh", "calf")
ROBOT_NAMES = ("calf", "hip", "thigh")
ORDER = np.array([2, 0, 1])  # robot[ORDER-wise]: position of the robot's joints among the policy's
LOWER, UPPER = np.array([-1.0, -0.5, -2.7]), np.array([1.0, 3.0, -0.8])
DEFAULT = np.array([0.1, 0.9, -1.6])
LYING = np.array([0.3, 1.5, -2.5])
NAN = float("nan")


def contract(clip=0.0, **changes):
    def term(name, size):
        return ContractTerm(name, size, "1", "", 1.0, 0.0, 1, True, "first", 0.0, 0.0, True)

    rows = zip(NAMES, DEFAULT.tolist(), LOWER.tolist(), UPPER.tolist(), strict=True)
    made = Contract(
        schema_version="1.0",
        robot=RobotModel("toy", "", "wxyz"),
        timing=Timing(0.02, 0.005, 0.04, (0.0, 0.0)),
        joints=tuple(
            Joint(name, default, 0.0, 0.5, 20.0, 0.5, low, high, low + 0.1, high - 0.1, 20.0, 10.0)
            for name, default, low, high in rows
        ),
        observation=(
            term("gyro", 3),
            term("gravity", 3),
            term("joint_position", 3),
            term("last_action", 3),
            term("command", 2),
        ),
        action=Action("joint_position", clip, 20.0, 1),
        state=(),
        noise=(),
        commands=(CommandRange("forward", "m/s", -0.5, 1.0), CommandRange("turn", "rad/s", -1.0, 1.0)),
        gait=None,
        randomization=(),
        training=Training("toy", 0, 0, "", {}),
        golden=Golden({}, {}, "", 1e-5),
        graph_sha256="",
    )
    return dataclasses.replace(made, **changes)


class FakePolicy:
    """Answers what `answer` makes of an observation; its state counts steps."""

    def __init__(self, made_for=None, answer=None):
        self.contract = made_for or contract()
        self.answer = answer or (lambda observation: np.full(3, 0.1, np.float32))
        self.observations, self.states = [], []

    def initial_state(self):
        return 0

    def step(self, observation, state):
        self.observations.append(observation)
        self.states.append(state)
        action = self.answer(observation)
        good = isinstance(action, np.ndarray) and action.shape == (3,) and action.dtype.kind == "f"
        return SimpleNamespace(action=action, target=DEFAULT + 0.5 * action if good else action, state=state + 1)


class Bench:
    """A controller with good readings, a tick every 20 ms."""

    def __init__(self, policy=None, limits=None, **more):
        self.policy = policy or FakePolicy()
        self.controller = Controller(self.policy, ROBOT_NAMES, limits, clock=lambda: 0.0, **more)
        self.now, self.sequence, self.pose = 100.0, 0, LYING
        self.random = np.random.default_rng(0)

    def reading(self, **changes):
        """A reading as the next tick finds it. Joints of `changes` are in the policy's order."""
        self.sequence += 1
        values = {
            "gyro": 0.1 * self.random.normal(size=3),
            "orientation": np.array([1.0, 0, 0, 0]),
            "joint_position": self.pose,
            "joint_velocity": 0.1 * self.random.normal(size=3),
            **changes,
        }
        for name in ("joint_position", "joint_velocity"):
            if isinstance(values[name], np.ndarray) and values[name].shape == (3,):
                values[name] = values[name][ORDER]
        return Reading(self.now + 0.019, self.sequence, values)

    def tick(self, request=None, command=(0.2, 0.0), reading="good"):
        reading = self.reading() if isinstance(reading, str) else reading
        self.now += 0.02
        command = np.array(command) if isinstance(command, tuple) else command
        return self.controller.tick(self.now, reading, command, request)

    def stand(self):
        self.tick("stand")
        for _ in range(110):
            output = self.tick()
            self.pose = output.target  # follows perfectly
        return output

    def run(self):
        self.stand()
        output = self.tick("run")
        assert output.mode is Mode.RUN
        return output


def damped(output, bench):
    targets = output.targets
    assert targets.position.shape == (3,) and np.isfinite(targets.position).all()
    assert (targets.position >= LOWER[ORDER]).all() and (targets.position <= UPPER[ORDER]).all()
    return not bench.controller.driven and not targets.stiffness.any() and (targets.damping > 0).all()


def faulted(output, bench, name):
    """The sentence of the fault that the output must be damped by."""
    assert output.mode is Mode.FAULT and damped(output, bench)
    assert output.fault.name == name, output.fault
    assert output.fault.sentence.endswith(".")
    return output.fault.sentence


def test_it_idles_damped():
    bench = Bench()
    for reading in (None, "good", None):
        output = bench.tick(reading=reading)
        assert output.mode is Mode.IDLE and damped(output, bench) and output.fault is None
    # 6 times the contract's damping.
    assert output.targets.damping.tolist() == [3.0] * 3


def test_it_stands_up_in_a_straight_line_of_two_seconds():
    bench = Bench()
    output = bench.tick("stand")
    assert output.mode is Mode.STAND
    assert output.targets.stiffness.tolist() == [60.0] * 3 and output.targets.damping.tolist() == [2.0] * 3
    np.testing.assert_allclose(output.target, LYING)
    for step in range(1, 120):
        output = bench.tick()
        bench.pose = output.target
        progress = min(1.0, 0.02 * step / 2.0)
        np.testing.assert_allclose(output.target, LYING + progress * (DEFAULT - LYING), atol=1e-9)
        np.testing.assert_array_equal(output.targets.position, output.target[ORDER])


def test_it_stands_where_and_as_stiffly_as_it_was_told():
    pose = np.array([0.2, 1.0, -1.2])
    bench = Bench(stance=Stance(pose, stiffness=1.0, damping=2.0, braking=1.0))
    # The full effort at the highest speed, which is more than the contract's damping: 10 N m at 20 rad/s.
    assert bench.tick().targets.damping.tolist() == [0.5] * 3
    output = bench.tick("stand")
    assert output.targets.stiffness.tolist() == [20.0] * 3 and output.targets.damping.tolist() == [1.0] * 3
    for _ in range(101):
        output = bench.tick()
        bench.pose = output.target
    np.testing.assert_allclose(output.target, pose, atol=1e-9)


@pytest.mark.parametrize("position", [np.zeros(2), np.full(3, np.nan)])
def test_a_stance_of_another_robot_is_refused(position):
    with pytest.raises(ValueError, match="it must be 3 finite numbers"):
        Bench(stance=Stance(position))


def test_a_joint_that_lags_behind_bounds_the_torque_of_standing_up():
    bench = Bench()
    bench.tick("stand")
    for _ in range(120):
        output = bench.tick()  # the pose stays
    velocity = output.values["joint_velocity"]
    torque = 60 * (output.target - LYING) - 2 * velocity
    assert (np.abs(torque) <= 10 + 1e-9).all() and np.abs(torque).max() > 9.99


def test_the_way_through_the_modes():
    bench = Bench()
    assert bench.tick("run").note == "run is refused: the robot must stand first"
    assert bench.tick("clear").note == "clear is refused: there is no fault to clear"
    assert bench.tick("stand").mode is Mode.STAND
    assert "stands only in 2.0 s" in bench.tick("run").note
    assert "standing up already" in bench.tick("stand").note
    output = bench.run()
    assert output.targets.stiffness.tolist() == [20.0] * 3 and output.targets.damping.tolist() == [0.5] * 3
    assert "runs already" in bench.tick("run").note
    assert bench.tick("stand").mode is Mode.STAND
    output = bench.tick("damp")
    assert output.mode is Mode.DAMP and damped(output, bench)
    assert bench.tick().mode is Mode.DAMP
    assert bench.tick("stand").mode is Mode.STAND
    output = bench.controller.stop()
    assert output.mode is Mode.DAMP and damped(output, bench)


def test_it_runs_the_policy():
    policy = FakePolicy(answer=lambda observation: np.array([0.1, -0.1, 0.2], np.float32))
    bench = Bench(policy)
    output = bench.run()
    for step in range(3):
        output = bench.tick(command=(9.0, -0.3))
        assert output.fresh and not output.held and output.inference_seconds == 0.0
        np.testing.assert_allclose(output.target, DEFAULT + 0.5 * output.action, atol=1e-7)
        np.testing.assert_array_equal(output.command, [1.0, -0.3])  # within the contract's ranges
        observation = policy.observations[-1]
        np.testing.assert_array_equal(output.observation, observation)
        np.testing.assert_allclose(observation[3:6], [0, 0, -1])
        np.testing.assert_allclose(observation[6:9], bench.pose, rtol=1e-6)  # in the policy's order
        np.testing.assert_allclose(observation[9:12], [0.1, -0.1, 0.2], rtol=1e-6)
        np.testing.assert_allclose(observation[12:], [1.0, -0.3], rtol=1e-6)
        assert policy.states[-1] == step + 1
    assert not policy.observations[0][9:12].any()
    bench.tick("stand")
    bench.run()
    assert policy.states[-1] == 0  # starts afresh


def test_targets_are_rate_limited_and_within_soft_limits():
    bench = Bench(FakePolicy(answer=lambda observation: np.full(3, 8.0)))
    output = bench.run()
    last = DEFAULT
    for _ in range(20):
        assert (np.abs(output.target - last) <= 0.4 + 1e-9).all() and (output.target <= UPPER - 0.1).all()
        last = bench.pose = output.target
        output = bench.tick()
    np.testing.assert_allclose(output.target, UPPER - 0.1)


def test_a_clipped_action_is_what_the_policy_observes():
    policy = FakePolicy(contract(clip=1.0), lambda observation: np.array([2.0, 0.5, 0.0]))
    bench = Bench(policy)
    bench.run()
    output = bench.tick()
    np.testing.assert_array_equal(policy.observations[-1][9:12], [1.0, 0.5, 0.0])
    np.testing.assert_allclose(output.target, DEFAULT + np.array([0.5, 0.25, 0.0]))


@pytest.mark.parametrize("lost", ["None", "the same", "an older one", "a late one"])
def test_one_lost_reading_holds_the_targets_and_two_damp(lost):
    bench = Bench()
    output = bench.run()
    last = bench.reading()
    old = bench.reading()
    bench.tick(reading=dataclasses.replace(last, sequence=10_000, stamp=bench.now + 0.019))
    bench.sequence = 10_000

    def lose():
        late = dataclasses.replace(bench.reading(), stamp=bench.now - 0.005)
        same = dataclasses.replace(last, sequence=10_000)
        return bench.tick(reading={"None": None, "the same": same, "an older one": old, "a late one": late}[lost])

    ran = len(bench.policy.observations)
    before = bench.controller.tick(bench.now, None, np.zeros(2)).target
    output = lose()
    assert output.mode is Mode.RUN and output.held and not output.fresh
    assert output.reordered == (lost == "an older one")
    np.testing.assert_array_equal(output.target, before)
    assert len(bench.policy.observations) == ran
    if lost == "a late one":  # late, but alive
        assert bench.tick().fresh
        return
    assert "the limit is 40.0 ms" in faulted(lose(), bench, "age")


def test_every_other_reading_is_enough():
    bench = Bench()
    bench.run()
    for step in range(50):
        assert bench.tick(reading="good" if step % 2 else None).mode is Mode.RUN


SENSORS = {
    "nan": ("finite", {"gyro": np.array([0, NAN, 0])}),
    "inf": ("finite", {"joint_velocity": np.array([0, 0, math.inf])}),
    "missing": ("shape", {"gyro": None}),
    "list": ("shape", {"gyro": [0.0, 0.0, 0.0]}),
    "short": ("shape", {"joint_position": np.zeros(2)}),
    "deep": ("shape", {"joint_position": np.zeros((1, 3))}),
    "text": ("shape", {"orientation": np.array(["1"] * 4)}),
    "quaternion": ("quaternion", {"orientation": np.zeros(4)}),
    "upside down": ("tilt", {"orientation": np.array([0.0, 1.0, 0, 0])}),
    "spinning": ("gyro", {"gyro": np.array([0, 0, 1e30])}),
    "shuffled": ("joint_position", {"joint_position": DEFAULT[[1, 2, 0]]}),
    "absurd": ("joint_position", {"joint_position": np.array([1e30, 0, 0])}),
    "fast": ("joint_velocity", {"joint_velocity": np.array([0, -41.0, 0])}),
}


@pytest.mark.parametrize("mode", ["stand", "run"])
@pytest.mark.parametrize(("name", "changes"), SENSORS.values(), ids=SENSORS)
def test_a_bad_reading_damps_at_once(mode, name, changes):
    bench = Bench()
    getattr(bench, mode)()
    ran = len(bench.policy.observations)
    faulted(bench.tick(reading=bench.reading(**changes)), bench, name)
    assert len(bench.policy.observations) == ran  # was not asked


STAMPS = {
    "old": ("age", {"stamp": 0.0}),
    "ahead": ("age", {"stamp": 1e9}),
    "nan": ("age", {"stamp": NAN}),
    "no number": ("age", {"stamp": "now"}),
    "no sequence": ("shape", {"sequence": None}),
    "no values": ("shape", {"values": None}),
}


@pytest.mark.parametrize(("name", "changes"), STAMPS.values(), ids=STAMPS)
def test_a_strange_message_damps_at_once(name, changes):
    bench = Bench()
    bench.run()
    faulted(bench.tick(reading=dataclasses.replace(bench.reading(), **changes)), bench, name)
    bench = Bench()
    bench.run()
    faulted(bench.tick(reading=("not", "a reading")), bench, "shape")


@pytest.mark.parametrize("name", ["gyro", "joint_velocity"])
def test_a_frozen_sensor_damps(name):
    bench = Bench()
    bench.run()
    frozen = {name: np.array([0.01, 0.02, 0.03])}
    for count in range(11):
        output = bench.tick(reading=bench.reading(**frozen))
        assert (output.mode is Mode.FAULT) == (count == 10)
    assert f"{name} was identical 10 times" in faulted(output, bench, "frozen")
    assert "frozen" in bench.tick("clear", reading=bench.reading(**frozen)).note


def failing(observation):
    raise RuntimeError("out of\nmemory.")


ANSWERS = {
    "raises": ("policy", failing),
    "nan": ("action", lambda observation: np.array([0, NAN, 0])),
    "inf": ("action", lambda observation: np.array([0, math.inf, 0])),
    "short": ("action", lambda observation: np.zeros(2)),
    "deep": ("action", lambda observation: np.zeros((1, 3))),
    "none": ("action", lambda observation: None),
    "text": ("action", lambda observation: np.array(["a"] * 3)),
}


def planning(answer, **more):
    """Makes a policy of four actions a step one of a single one."""
    made = contract()
    made = dataclasses.replace(made, action=dataclasses.replace(made.action, horizon=4))

    def step(observation, state):
        action = answer(observation)
        return SimpleNamespace(action=action, target=(DEFAULT + 0.5 * action).astype(np.float32), state=state)

    policy = SimpleNamespace(contract=made, initial_state=lambda: (), step=step)
    return ChunkedPolicy(policy, clock=lambda: 0.0, **more)


def test_it_runs_a_policy_that_plans_ahead():
    chunk = np.array([[0.1, 0, 0], [0.2, 0, 0], [0.1, 0, 0], [0, 0, 0]], np.float32)
    bench = Bench(planning(lambda observation: chunk, n_action_steps=3))
    output = bench.run()
    for step in range(10):
        np.testing.assert_array_equal(output.action, chunk[step % 3])
        np.testing.assert_allclose(output.target, DEFAULT + 0.5 * chunk[step % 3], atol=1e-6)
        output = bench.tick()
        np.testing.assert_array_equal(output.observation[9:12], chunk[step % 3])  # the last action


def test_a_plan_that_fails_or_does_not_come_damps():
    chunk = np.full((4, 3), 0.1, np.float32)
    answers = [chunk] * 6  # five to warm up
    bench = Bench(planning(lambda observation: answers.pop(0)))
    bench.run()
    for _ in range(3):
        assert bench.tick().mode is Mode.RUN
    assert "the policy failed: ChunkError: planning failed: IndexError" in faulted(bench.tick(), bench, "policy")

    class Asleep(Executor):
        def __init__(self):
            self.awake = 6

        def submit(self, job, *arguments):
            future = Future()
            if self.awake > 0:
                future.set_result(job(*arguments))
            self.awake -= 1
            return future

    policy = planning(lambda observation: chunk, mode="asynchronous", hold_periods=2, executor=Asleep())
    bench = Bench(policy)
    output = bench.run()
    for _ in range(5):  # what is left of the plan, and held
        output = bench.tick()
        np.testing.assert_allclose(output.target, DEFAULT + 0.05, atol=1e-6)
    assert policy.statistics.held == 2
    assert "no plan arrived in time" in faulted(bench.tick(), bench, "policy")


@pytest.mark.parametrize(("name", "answer"), ANSWERS.values(), ids=ANSWERS)
def test_a_failing_policy_damps_in_the_same_tick(name, answer):
    bench = Bench()
    bench.run()
    bench.policy.answer = answer
    sentence = faulted(bench.tick(), bench, name)
    if answer is failing:
        assert sentence == "the policy failed: RuntimeError: out of memory."


def test_a_policy_that_cannot_start_damps():
    bench = Bench()
    bench.stand()
    bench.policy.initial_state = lambda: 1 / 0
    assert "cannot start: ZeroDivisionError" in faulted(bench.tick("run"), bench, "policy")


def test_a_slow_policy_damps_in_the_same_tick():
    bench = Bench()
    bench.run()
    times = iter([5.0, 5.1])
    bench.controller._clock = lambda: next(times)
    assert "took 100.0 ms, the limit is 10.0 ms" in faulted(bench.tick(), bench, "deadline")


@pytest.mark.parametrize(("clip", "action"), [(1.0, [1.0, -1.0, 1.0]), (0.0, [0.0, 0.0, 30.0])])
def test_a_saturated_policy_damps_after_half_a_second(clip, action):
    bench = Bench(FakePolicy(contract(clip=clip)))
    bench.run()
    bench.policy.answer = lambda observation: np.array(action)
    for count in range(25):
        output = bench.tick()
        bench.pose = output.target
        assert (output.mode is Mode.FAULT) == (count == 24)
    faulted(output, bench, "saturation")


def test_what_is_wrong_with_the_operator_damps():
    for command in (None, np.zeros(3), np.array([NAN, 0]), "forward"):
        bench = Bench()
        bench.stand()
        assert bench.tick(command=command).mode is Mode.STAND
        bench = Bench()
        bench.run()
        faulted(bench.tick(command=command), bench, "command")
    for request in ("fly", 3, b"run", ["stand"]):
        bench = Bench()
        bench.run()
        assert "known are stand, run, damp, clear" in faulted(bench.tick(request), bench, "request")


def test_a_clock_that_is_none_damps():
    for now, sentence in [(NAN, "must be finite"), (None, "must be finite"), (1.0, "before the last")]:
        bench = Bench()
        bench.run()
        assert sentence in faulted(bench.controller.tick(now, bench.reading(), np.zeros(2)), bench, "clock")
    bench = Bench()
    bench.run()
    bench.now += 1.0
    assert "the limit is 0.100 s" in faulted(bench.tick(), bench, "clock")


def test_a_source_that_fails_or_lies_damps():
    def height(values):
        return answers.pop(0)()

    for answer, sentence in [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: np.array([NAN]), "observation[14] is nan"),
        (lambda: np.zeros(2), "has shape (2,)"),
    ]:
        answers = [lambda: np.zeros(1), answer]
        more = ContractTerm("height", 1, "m", "", 1.0, 0.0, 1, True, "first", 0.0, 0.0, True)
        policy = FakePolicy(contract(observation=(*contract().observation, more)))
        bench = Bench(policy, sources={"height": height})
        bench.run()
        assert sentence in faulted(bench.tick(), bench, "observation")


def test_a_bug_in_the_controller_damps(monkeypatch):
    bench = Bench()
    bench.run()
    monkeypatch.setattr(bench.controller, "_send", lambda target: 1 / 0)
    assert "ZeroDivisionError" in faulted(bench.tick(), bench, "internal")


def test_a_fault_is_latched_until_it_is_cleared_with_good_readings():
    bench = Bench()
    bench.run()
    fallen = {"orientation": np.array([0.0, 1.0, 0, 0])}
    first = bench.tick(reading=bench.reading(**fallen)).fault
    for request in (None, "stand", "run", "damp"):
        output = bench.tick(request)
        assert output.mode is Mode.FAULT and output.fault is first and damped(output, bench)
        assert request is None or output.note.startswith(f"{request} is refused")
    assert "leans by 3.14 rad" in bench.tick("clear", reading=bench.reading(**fallen)).note
    bench.tick(reading=bench.reading(**fallen))
    assert "leans by 3.14 rad" in bench.tick("clear", reading=None).note
    bench.tick()
    for _ in range(2):
        bench.tick(reading=None)
    output = bench.tick("clear", reading=None)
    assert "ms old" in output.note and output.mode is Mode.FAULT
    output = bench.tick("clear")
    assert output.mode is Mode.IDLE and output.fault is None and damped(output, bench)
    bench.run()


def test_a_robot_that_was_switched_on_again_can_be_used():
    bench = Bench()
    bench.run()
    for _ in range(3):
        bench.tick(reading=None)
    bench.sequence = 0
    assert bench.tick("clear").mode is Mode.IDLE
    assert bench.tick("stand").mode is Mode.STAND


def test_it_will_not_stand_without_good_readings():
    bench = Bench()
    assert "nothing was read" in bench.tick("stand", reading=None).note
    bad = bench.reading(gyro=np.array([NAN, 0, 0]))
    output = bench.tick("stand", reading=bad)
    assert output.mode is Mode.IDLE and "gyro[0] is nan" in output.note and output.fault is None


def test_joints_are_matched_by_name():
    from_robot, to_robot = joint_maps(NAMES, ROBOT_NAMES)
    assert [ROBOT_NAMES[i] for i in from_robot] == list(NAMES)
    assert [NAMES[i] for i in to_robot] == list(ROBOT_NAMES)
    np.testing.assert_array_equal(from_robot[to_robot], np.arange(3))
    with pytest.raises(ContractError, match="lacks calf and also has knee"):
        Controller(FakePolicy(), ("hip", "thigh", "knee"))
    with pytest.raises(ContractError, match="lacks calf: "):
        Controller(FakePolicy(), ("hip", "thigh"))
    with pytest.raises(ContractError, match="joints of the same name: hip"):
        Controller(FakePolicy(), ("hip", "hip", "thigh"))


def test_policies_and_limits_that_do_not_fit_are_refused():
    action = contract().action
    with pytest.raises(ContractError, match="not joint_torque"):
        Controller(FakePolicy(contract(action=dataclasses.replace(action, type="joint_torque"))), NAMES)
    with pytest.raises(ContractError, match=r"one action a step, not 4: wrap this one in a deploy\.chunks"):
        Controller(FakePolicy(contract(action=dataclasses.replace(action, horizon=4))), NAMES)
    with pytest.raises(ValueError, match="within the joints' lower and upper limits"):
        Controller(FakePolicy(), NAMES, limits_of(contract(), soft_upper=UPPER + 0.1))
    one = contract(joints=contract().joints[:1])
    with pytest.raises(ValueError, match="limits are of 1 joints, the robot has 3"):
        Controller(FakePolicy(), NAMES, limits_of(one))


def test_what_comes_out_belongs_to_the_caller():
    bench = Bench()
    output = bench.run()
    for array in (output.targets.position, output.targets.stiffness, output.targets.damping, output.target):
        array[:] = NAN
    assert bench.tick().mode is Mode.RUN


def test_nothing_that_comes_in_gets_targets_outside_the_limits_out():
    """Thousands of ticks with adversarial values, restarted from running whenever they tripped."""
    random = np.random.default_rng(0)
    strange = [NAN, math.inf, -math.inf, 1e30, -1e30, 1e308, -0.0, 5e-324]
    values = [None, "text", [], np.zeros(0), np.zeros((3, 3)), np.array([None] * 3), np.zeros(3, complex), 3.0]

    def spoil(array):
        array = np.array(array, random.choice([np.float64, np.float32]) if random.random() < 0.2 else np.float64)
        where = random.integers(array.size)
        with np.errstate(over="ignore"):
            array[where] = random.choice(strange) if random.random() < 0.5 else 10 * random.normal()
        return array

    def answer(observation):
        kind = random.integers(40)
        if kind == 0:
            return values[random.integers(len(values))]
        if kind == 1:
            raise ValueError("no")
        action = random.normal(size=3) * random.choice([0.1, 1.0, 100.0])
        return spoil(action) if kind == 2 else action

    bench = Bench(FakePolicy(answer=lambda observation: np.zeros(3)))
    seen, modes = set(), dict.fromkeys(Mode, 0)
    for _ in range(250):
        bench.policy.answer = lambda observation: np.zeros(3)
        bench.pose = LYING
        bench.tick()
        bench.tick("clear")
        bench.run() if random.random() < 0.8 else bench.tick("stand")
        bench.policy.answer = answer
        for _ in range(60):
            kind = random.integers(100)
            reading, command, request = bench.reading(), random.normal(size=2), None
            bench.now = now = bench.now + 0.02
            if kind == 0:
                name = random.choice(["gyro", "orientation", "joint_position", "joint_velocity"])
                reading.values[name] = values[random.integers(len(values))]
            elif kind == 1:
                name = random.choice(["gyro", "joint_position", "joint_velocity"])
                reading.values[name] = spoil(reading.values[name])
            elif kind == 2:
                reading = [None, 3, "reading", bench.reading(), Reading(now, -1, {})][random.integers(5)]
            elif kind == 3:
                reading = dataclasses.replace(reading, stamp=random.choice([*strange, now - 0.03]))
            elif kind == 4:
                command = [spoil(np.zeros(2)), None, "x", np.zeros(5)][random.integers(4)]
            elif kind == 5:
                request = ["stand", "run", "damp", "clear", "jump", 7][random.integers(6)]
            elif kind == 6:
                now = random.choice([*strange, now - 1, now + 1])
            elif kind == 7:
                bench.pose = random.uniform(LOWER - 0.3, UPPER + 0.3)
            output = bench.controller.tick(now, reading, command, request)
            modes[output.mode] += 1
            targets, position = output.targets, output.targets.position[[1, 2, 0]]
            for array in (targets.position, targets.stiffness, targets.damping):
                assert array.shape == (3,) and array.dtype == np.float64 and np.isfinite(array).all()
            if output.mode in (Mode.STAND, Mode.RUN):
                assert (position >= LOWER + 0.1 - 1e-12).all() and (position <= UPPER - 0.1 + 1e-12).all()
            else:
                assert damped(output, bench)
            if output.mode is Mode.FAULT:
                seen.add(output.fault.name)
                assert output.fault.name != "internal", output.fault
                break
            bench.pose = np.clip(output.target, LOWER, UPPER) if random.random() < 0.9 else bench.pose
        bench.sequence += 1
        bench.now += 1.0
    assert seen >= {"age", "shape", "finite", "joint_position", "command", "request", "policy", "action", "clock"}, seen
    assert seen <= FAULTS.keys()
    assert modes[Mode.RUN] > 1500 and modes[Mode.STAND] > 100
