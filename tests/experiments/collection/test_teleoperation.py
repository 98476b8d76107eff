"""A session at the smallest task, driven by scripts that watch it as a person would, on a clock of their own."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from mjx_policies.data import lerobot, robomimic
from mjx_policies.data.formats import read
from mjx_policies.envs.registry import load
from mjx_policies.envs.teleoperation import ActionMapping, MotionAxis, make_action_mapping
from mjx_policies.experiments.collection.teleoperation import (
    HOLD,
    LATE,
    SPEEDS,
    Session,
    TeleopDevice,
    deadline_misses,
    make_teleop_task,
    run,
)

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
DT = 0.1


@pytest.fixture(scope="module")
def task():
    return load("Obstacle2D", "cpu", 1)


@pytest.fixture(scope="module")
def robot(task):
    return make_teleop_task(task, make_action_mapping(task))


class Clock:
    """Time that passes while somebody sleeps, and by `delay` s in the calls of `slow`, counted from 0."""

    def __init__(self, slow=(), delay=0.0):
        self.now, self.slow, self.delay = 0.0, set(slow), delay
        self._calls = itertools.count()

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds >= 0
        self.now += seconds

    def work(self):
        if next(self._calls) in self.slow:
            self.now += self.delay


def person(session, *script):
    """Keys, one entry a period: text, or a function of the session that says what it would press now."""
    entries = iter(script)
    current = None

    def read_keys():
        nonlocal current
        if current is None:
            current = next(entries, ["x"])
        if callable(current):
            pressed = current(session)
            if pressed is not None:
                return pressed
            current = next(entries, ["x"])
            return []
        pressed, current = current, None
        return pressed

    return read_keys


def around(session):
    """Keys that lead around the obstacle on the left, until the episode is over."""
    if session.phase == "over":
        return None
    x, y, _, _, ox, oy, gx, gy = np.asarray(session.timestep.obs["state"])
    tx, ty = (ox, oy + 0.55) if x < ox - 0.05 else (gx, gy)
    keys = ["w"] if tx - x > 0.05 else ["s"] if tx - x < -0.05 else []
    return keys + (["a"] if ty - y > 0.05 else ["d"] if ty - y < -0.05 else [])


def wait(periods):
    return [[] for _ in range(periods)]


def drive(session, *script, clock=None, update=lambda session: True):
    clock = clock or Clock()
    run(session, person(session, *script), update, clock, clock.sleep)
    return session


def make_session(robot, writer, **arguments):
    return Session(robot, writer, "Obstacle2D", seed=7, **arguments)


def test_an_episode_is_driven_to_success_and_loads(robot, tmp_path):
    with lerobot.Writer(tmp_path / "demos") as writer:
        session = make_session(robot, writer, operator="ada")
        drive(session, ["="], ["enter"], around, ["enter"])
        found = read(tmp_path / "demos")[0]  # on the disk at once
    assert found.success and not found.terminated and found.strategy == "ada" and found.seed == 7 and found.fps == 10
    assert "saved episode 0, a success" in session.note
    # The same actions from the same initial state lead to the same observations: nothing was left out, nothing added.
    state, timestep = robot.task.reset(jax.random.split(jax.random.key(7))[1], {})
    step = jax.jit(robot.task.step)
    for t, action in enumerate(found.action):
        np.testing.assert_allclose(timestep.obs["state"], found.observation["state"][t], atol=1e-5)
        state, timestep = step(state, action)
        assert timestep.reward == pytest.approx(found.reward[t], abs=1e-5)
    np.testing.assert_allclose(timestep.obs["state"], found.final_observation["state"], atol=1e-5)


@pytest.mark.parametrize("kind", ["lerobot", "robomimic"])
def test_episodes_are_saved_discarded_and_taken_back(robot, tmp_path, kind):
    module, path = {"lerobot": (lerobot, tmp_path / "a"), "robomimic": (robomimic, tmp_path / "a.hdf5")}[kind]
    notes = []

    def update(session):
        if session.note not in notes[-1:]:
            notes.append(session.note)
        return True

    episode = lambda steps: ([["enter"], *wait(steps - 1), ["enter"]])  # noqa: E731
    with module.Writer(path) as writer:
        session = make_session(robot, writer)
        script = [
            *episode(4),
            *episode(5),
            ["u"],
            ["enter"], ["w"], ["u"], ["backspace"],
            *episode(6),
            ["backspace"],
            ["enter", "enter"],
            *wait(2),
            ["enter"],
        ]  # fmt: skip
        drive(session, *script, update=update)
    found = read(path)
    assert found.lengths == [4, 6, 3] and not any(episode.success for episode in found)
    assert [episode.seed for episode in found] == [7, 10, 12]
    words = " | ".join(notes)
    for expected in (
        "saved episode 1, a failure of 0.5 s",
        "took back the last episode; 1 are left",
        "save or discard this episode first",
        "discarded 0.3 s",
        "nothing to discard",
        "nothing has happened yet",
    ):
        assert expected in words


def test_what_was_pressed_before_an_episode_moves_nothing(robot, tmp_path):
    with lerobot.Writer(tmp_path / "a") as writer:
        drive(make_session(robot, writer), ["w"], ["a"], ["enter"], *wait(3), ["enter"])
    assert not read(tmp_path / "a")[0].action.any()


def test_an_episode_that_diverged_is_told_and_not_saved(robot, tmp_path):
    def diverging(state, velocity, closed):
        state, timestep, action = robot.advance(state, velocity, closed)
        return state, dataclasses.replace(timestep, reward=timestep.reward * np.nan), action

    notes = []
    with lerobot.Writer(tmp_path / "a") as writer:
        session = make_session(robot._replace(advance=diverging), writer)
        script = [["enter"], *wait(2), ["enter"], ["backspace"], []]
        drive(session, *script, update=lambda session: notes.append(session.note) or True)
        assert session.saved == 0 and session.phase == "ready"
    assert any("reward holds nan" in note and "cannot be saved" in note for note in notes)


def test_nothing_can_be_taken_back_from_an_empty_dataset(robot, tmp_path):
    with lerobot.Writer(tmp_path / "a") as writer:
        assert "no episode that can still be taken back" in drive(make_session(robot, writer), ["u"]).note


def test_a_lost_task_ends_its_episode(robot, tmp_path):
    """Straight into the obstacle."""
    straight = lambda session: None if session.phase == "over" else ["w"]  # noqa: E731
    with lerobot.Writer(tmp_path / "a") as writer:
        drive(make_session(robot, writer), *[["="]] * 3, ["enter"], straight, ["enter"])
    found = read(tmp_path / "a")[0]
    assert found.terminated and not found.success


def test_deadline_misses_are_counted_and_not_caught_up_with(robot, tmp_path):
    """Two updates of an episode take 0.25 s: the steps after them are 0.15 s late, and no step is skipped."""
    clock = Clock(slow=(3, 6), delay=0.25)
    times = []

    def update(session):
        times.append(clock.now)
        clock.work()
        return True

    with lerobot.Writer(tmp_path / "a") as writer:
        session = drive(make_session(robot, writer), ["enter"], *wait(9), ["enter"], clock=clock, update=update)
    assert len(read(tmp_path / "a")[0]) == 10
    assert deadline_misses(session.delays[0], DT) == 2 and max(session.delays[0]) == pytest.approx(0.15)
    gaps = np.diff(times)
    np.testing.assert_allclose(gaps, np.where(np.isin(np.arange(len(gaps)), (3, 6)), 0.25, DT), atol=1e-9)


def test_a_period_counts_as_late_from_a_fifth_on(robot, tmp_path):
    clock = Clock(slow=range(100), delay=(1 + 0.9 * LATE) * DT)
    with lerobot.Writer(tmp_path / "a") as writer:
        session = make_session(robot, writer)
        drive(session, ["enter"], *wait(4), ["enter"], clock=clock, update=lambda _: clock.work() or True)
    assert deadline_misses(session.delays[0], DT) == 0 and max(session.delays[0]) > 0


def test_a_session_ends_when_nobody_watches(robot, tmp_path):
    with lerobot.Writer(tmp_path / "a") as writer:
        session = make_session(robot, writer)
        drive(session, ["enter"], *wait(50), update=lambda session: session.seconds < 1)
        assert session.seconds == pytest.approx(1.0) and session.saved == 0


# The device.


def arm(control_dt=0.05):
    motions = [MotionAxis(name, "m/s", 0.4) for name in "xyz"] + [MotionAxis(name, "rad/s", 2.0) for name in "rpy"]
    return TeleopDevice(ActionMapping(tuple(motions), True, lambda *_: None), control_dt)


def test_a_press_is_a_short_way_and_a_held_key_a_long_one():
    device = arm()
    device.press("w")
    way = sum(device.next_velocity()[0] * 0.05 for _ in range(40))
    assert way == pytest.approx(HOLD * device.speed * 0.4, rel=0.05) and device.velocity[0] == 0
    for _ in range(40):  # repeats at 20 Hz
        device.press("w")
        device.next_velocity()
    assert device.velocity[0] == pytest.approx(device.speed * 0.4, rel=1e-3)


def test_the_other_direction_counts_at_once_and_sticks_add():
    device = arm()
    for key in "wswr":
        device.press(key)
    device.press("s")
    assert device.next_velocity()[0] < 0 < device.velocity[2]
    device = arm()
    device.sticks = np.array([0.5, 0, 0, 0, 0, -1.0])
    for _ in range(60):
        velocity = device.next_velocity()
    np.testing.assert_allclose(velocity, device.speed * np.array([0.2, 0, 0, 0, 0, -2.0]), rtol=1e-3)


def test_speeds_end_at_both_ends_and_unknown_keys_are_told():
    device = arm()
    for _ in range(9):
        device.press("-")
    assert device.speed == SPEEDS[0]
    for _ in range(9):
        device.press("=")
    assert device.speed == SPEEDS[-1]
    assert device.press(" ") and device.closed and not device.press("k") and not device.press("")
