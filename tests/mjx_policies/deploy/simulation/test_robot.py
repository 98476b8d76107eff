import mujoco
import numpy as np
import pytest

from mjx_policies.deploy.robot import Targets
from mjx_policies.deploy.robots import ticks
from mjx_policies.deploy.simulation.robot import COMMAND_TIMEOUT, Faults, Push, SimulatedRobot
from mjx_policies.envs.quadruped.scenes import flat

MODEL = flat()
HOME = MODEL.key("home").ctrl
DT = MODEL.opt.timestep


def targets(position=HOME, stiffness=25.0, damping=0.5):
    return Targets(np.array(position), np.full(len(position), stiffness), np.full(len(position), damping))


def stand(robot, seconds, each=None):
    """Holds the home pose at 50 Hz."""
    order = [robot._names.index(name) for name in robot.joint_names]
    for _ in range(round(seconds / 0.02)):
        robot.write(targets(HOME[order]))
        robot.advance(0.02)
        if each is not None:
            each(robot.read())


def test_it_stands_and_reads_what_the_model_says():
    robot = SimulatedRobot(MODEL)
    assert robot.name == "go2" and robot.joint_names[:3] == ("FL_hip", "FL_thigh", "FL_calf")
    assert robot.read() is None and robot.damped
    stand(robot, 1.0)
    reading = robot.read()
    assert reading.stamp == pytest.approx(1.0) and reading.stamp == robot.time() and reading.sequence == round(1 / DT)
    assert robot.data.qpos[2] == pytest.approx(MODEL.key("home").qpos[2], abs=0.02)
    np.testing.assert_array_equal(reading.values["joint_position"], robot.data.qpos[7:])
    np.testing.assert_array_equal(reading.values["joint_velocity"], robot.data.qvel[6:])
    np.testing.assert_allclose(reading.values["orientation"], robot.data.qpos[3:7], atol=1e-12)
    np.testing.assert_allclose(reading.values["gyro"], robot.data.qvel[3:6], atol=1e-12)


def test_the_model_that_came_in_stays_as_it_was():
    before = MODEL.actuator_gainprm.copy()
    stand(SimulatedRobot(MODEL), 0.1)
    np.testing.assert_array_equal(MODEL.actuator_gainprm, before)


def test_torques_follow_the_servo_law_within_the_motors():
    robot = SimulatedRobot(MODEL)
    gains = np.linspace(5, 400, 12), np.linspace(0.1, 3, 12)
    robot.write(Targets(HOME + 0.1, *gains))
    for _ in range(5):
        robot.advance(DT)
        robot.write(Targets(HOME + 0.1, *gains))
        angles, speeds = robot.data.qpos[7:], robot.data.qvel[6:]
        law = gains[0] * (HOME + 0.1 - angles) - gains[1] * speeds
        mujoco.mj_forward(robot._model, robot.data)
        low, high = MODEL.actuator_forcerange.T
        np.testing.assert_allclose(robot.data.actuator_force, np.clip(law, low, high), atol=1e-9)


def test_a_weak_motor_makes_a_share_of_the_torque_it_is_told_to_and_of_its_most():
    share = np.where(np.arange(12) < 3, 0.6, 1.0)
    robot = SimulatedRobot(MODEL, faults=Faults(strength=dict.fromkeys(("FL_hip", "FL_thigh", "FL_calf"), 0.6)))
    high = MODEL.actuator_forcerange[:, 1]
    for offset in (0.1, 10.0):  # rad, within the motors and far beyond them
        robot.write(targets(HOME + offset))
        robot.advance(DT)
        law = 25.0 * (HOME + offset - robot.data.qpos[7:]) - 0.5 * robot.data.qvel[6:]
        np.testing.assert_allclose(robot.data.actuator_force, share * np.clip(law, -high, high), atol=1e-9)
    robot.faults = Faults()
    robot.write(targets(HOME + 10.0))
    robot.advance(DT)
    np.testing.assert_array_equal(robot.data.actuator_force, high)
    with pytest.raises(ValueError, match="strength names 'tail', this robot has FL_hip"):
        robot.faults = Faults(strength={"tail": 0.5})
    with pytest.raises(ValueError, match="strength of FL_hip is nan, it must be a share"):
        Faults(strength={"FL_hip": np.nan})


def test_motors_damp_when_nobody_writes_until_somebody_does():
    robot = SimulatedRobot(MODEL)
    stand(robot, 0.5)
    assert not robot.watchdog and not robot.damped
    robot.advance(COMMAND_TIMEOUT - 0.03)
    assert not robot.watchdog
    robot.advance(0.03)
    assert robot.watchdog and robot.damped
    robot.advance(1.0)
    assert robot.watchdog and robot.data.qpos[2] < 0.2  # it sank
    stand(robot, 0.1)
    assert not robot.watchdog and not robot.damped


def test_close_damps():
    robot = SimulatedRobot(MODEL)
    stand(robot, 0.1)
    robot.close()
    assert robot.damped


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (targets(HOME * np.nan), "position is not finite"),
        (targets(HOME[:3]), "takes \\(12,\\)"),
        (targets(HOME, stiffness=-1.0), "stiffness is negative"),
        (targets(HOME, damping=np.inf), "damping is not finite"),
    ],
)
def test_wrong_targets_are_refused_and_damp(wrong, sentence):
    robot = SimulatedRobot(MODEL)
    stand(robot, 0.1)
    with pytest.raises(ValueError, match=sentence):
        robot.write(wrong)
    assert robot.damped


@pytest.mark.parametrize(
    "names, sentence",
    [(["FL_hip", "tail"], "no actuator 'tail'; it has FL_hip"), (["FL_hip"] * 2, "once"), ([], "once")],
)
def test_wrong_joints_are_refused(names, sentence):
    with pytest.raises(ValueError, match=sentence):
        SimulatedRobot(MODEL, names)


def test_wrong_faults_are_refused():
    for wrong in (
        {"drop_writes": 1.5},
        {"action_latency": -1.0},
        {"joint_order": "odd"},
        {"observation_jitter": np.nan},
    ):
        with pytest.raises(ValueError, match="Faults"):
            Faults(**wrong)
    with pytest.raises(ValueError, match=r"Faults.noise names 'gyroscope', this robot reads gyro"):
        SimulatedRobot(MODEL, faults=Faults(noise={"gyroscope": 1.0}))


def test_joints_come_in_the_order_asked_for():
    names = SimulatedRobot(MODEL).joint_names[::-1]
    robot = SimulatedRobot(MODEL, names)
    stand(robot, 0.3)
    np.testing.assert_array_equal(robot.read().values["joint_position"], robot.data.qpos[7:][::-1])
    assert robot.data.qpos[2] > 0.25


def test_lock_step_is_deterministic():
    faults = Faults(0.01, 0.02, 0.005, 0.01, {"gyro": 0.2}, {"gyro": 0.1}, 0.1, 0.1, reorder=0.2)

    def run(seed):
        found = []
        robot = SimulatedRobot(MODEL, faults=faults, seed=seed)
        stand(robot, 0.5, found.append)
        return [None if reading is None else (reading.stamp, *reading.values["gyro"]) for reading in found]

    assert run(3) == run(3) != run(4)


def test_readings_are_late():
    robot = SimulatedRobot(MODEL, faults=Faults(observation_latency=0.05))
    ages = []
    stand(robot, 0.5, lambda reading: reading and ages.append(robot.time() - reading.stamp))
    assert min(ages) >= 0.05 - 1e-9 and max(ages) < 0.05 + DT + 1e-9


def test_actions_are_late():
    robot = SimulatedRobot(MODEL, faults=Faults(action_latency=0.03))
    robot.write(targets())
    robot.advance(0.03 - DT)
    assert robot.damped
    robot.advance(3 * DT)  # motors are told at the beginning of a step
    assert not robot.damped


def test_noise_and_bias_stay_within_their_widths():
    robot = SimulatedRobot(MODEL, faults=Faults(noise={"joint_position": 0.03}, bias={"joint_position": 0.1}))
    errors = []
    stand(robot, 2.0, lambda reading: errors.append(reading.values["joint_position"] - robot.data.qpos[7:]))
    errors = np.array(errors)
    bias = errors.mean(axis=0)
    assert np.abs(bias).max() < 0.1 + 0.01 and np.abs(bias).max() > 0.05
    assert 0.02 < np.abs(errors - bias).max() < 0.04
    assert len(np.unique(errors)) == errors.size


def test_orientation_stays_a_rotation():
    robot = SimulatedRobot(MODEL, faults=Faults(noise={"orientation": 0.1}))
    stand(robot, 0.2, lambda reading: np.testing.assert_allclose(np.linalg.norm(reading.values["orientation"]), 1))


def test_messages_are_lost():
    robot = SimulatedRobot(MODEL, faults=Faults(drop_readings=1.0))
    stand(robot, 0.2)
    assert robot.read() is None
    robot.faults = Faults(drop_writes=1.0)
    stand(robot, 0.2)
    assert robot.read() is not None and robot.watchdog
    robot.faults = Faults(drop_readings=0.3)
    robot.reset()
    sequences = []
    for _ in range(500):
        robot.advance(DT)
        sequences.append(robot.read().sequence if robot.read() else 0)
    assert len(set(sequences)) / 500 == pytest.approx(0.7, abs=0.07)


def test_messages_overtake_each_other():
    robot = SimulatedRobot(MODEL, faults=Faults(reorder=0.3))
    sequences = []
    stand(robot, 2.0, lambda reading: sequences.append(reading.sequence))
    assert (np.diff(sequences) < 0).any()


def test_frozen_sensors_go_on_counting():
    robot = SimulatedRobot(MODEL)
    stand(robot, 0.1)
    robot.faults = Faults(freeze=True)
    robot.advance(DT)
    first = robot.read()
    stand(robot, 0.1)
    second = robot.read()
    assert second.sequence > first.sequence and second.stamp > first.stamp
    for name, value in first.values.items():
        np.testing.assert_array_equal(value, second.values[name])
    robot.faults = Faults()
    stand(robot, 0.1)
    assert (robot.read().values["gyro"] != first.values["gyro"]).any()


def test_a_shuffled_robot_works_and_a_lying_one_does_not():
    true = SimulatedRobot(MODEL)
    shuffled = SimulatedRobot(MODEL, faults=Faults(joint_order="shuffled"))
    lying = SimulatedRobot(MODEL, faults=Faults(joint_order="lying"))
    assert shuffled.joint_names != true.joint_names and set(shuffled.joint_names) == set(true.joint_names)
    assert lying.joint_names == true.joint_names
    for robot in (true, shuffled, lying):
        stand(robot, 0.5)
    np.testing.assert_allclose(shuffled.data.qpos, true.data.qpos, atol=1e-9)
    by_name = dict(zip(shuffled.joint_names, shuffled.read().values["joint_position"], strict=True))
    np.testing.assert_allclose([by_name[name] for name in true.joint_names], true.data.qpos[7:], atol=1e-9)
    lies = lying.read().values["joint_position"]
    assert (lies != lying.data.qpos[7:]).any() and sorted(lies) == sorted(lying.data.qpos[7:])
    assert np.abs(lying.data.qpos[7:] - true.data.qpos[7:]).max() > 0.3


def test_values_break():
    robot = SimulatedRobot(MODEL, faults=Faults(broken={"gyro": np.nan, "joint_velocity": np.inf}))
    robot.advance(DT)
    values = robot.read().values
    assert np.isnan(values["gyro"][0]) and np.isfinite(values["gyro"][1:]).all()
    assert np.isinf(values["joint_velocity"][0]) and np.isfinite(robot.data.qvel).all()


def test_a_push_moves_it_only_while_it_lasts():
    robot = SimulatedRobot(MODEL, pushes=[Push(0.5, 0.2, (0.0, 150.0, 0.0))])
    speeds = []
    stand(robot, 1.5, lambda reading: speeds.append(abs(robot.data.qvel[1])))
    assert max(speeds[:24]) < 0.05 < 0.5 < max(speeds[25:40])
    assert not robot.data.xfrc_applied.any()


def test_the_thread_catches_up_a_little_and_skips_the_rest():
    now = [0.0]
    robot = SimulatedRobot(MODEL, clock=lambda: now[0])
    for elapsed, simulated, skipped in ((0.05, 0.05, 0.0), (1.0, 0.15, 0.9), (0.05, 0.2, 0.9)):
        now[0] += elapsed
        robot._catch_up(elapsed, now[0])
        assert robot.data.time == pytest.approx(simulated, abs=DT) and robot.skipped == pytest.approx(skipped)


def test_the_thread_runs_on_its_clock_and_ends():
    robot = SimulatedRobot(MODEL)
    robot.start()
    with pytest.raises(RuntimeError, match="lock-step"):
        robot.advance(1.0)
    with pytest.raises(RuntimeError, match="runs already"):
        robot.start()
    while robot.read() is None or robot.read().sequence < 5:
        robot.write(targets())
    assert abs(robot.read().stamp - robot.time()) < 5  # the same clock, whatever the machine is busy with
    robot.close()
    assert robot.damped
    robot.advance(DT)


def test_a_model_without_an_imu_will_do():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><body><joint name="a" axis="0 1 0"/><geom size=".1" pos=".1 0 0"/></body></worldbody>
        <actuator><motor name="m" joint="a"/></actuator></mujoco>"""
    )
    robot = SimulatedRobot(model, name="pendulum")
    robot.reset(qpos=np.array([0.5]))
    robot.write(targets([0.5], 500.0, 50.0))
    robot.advance(0.05)
    assert set(robot.read().values) == {"joint_position", "joint_velocity"}
    assert robot.read().values["joint_position"] == pytest.approx([0.5], abs=0.05)


def test_ticks_keep_to_the_grid_and_never_run_in_bursts():
    now, times = [0.0], []

    def sleep(seconds):
        assert seconds > 0
        now[0] += seconds

    for time in ticks(0.1, lambda: len(times) == 6, lambda: now[0], sleep):
        times.append(time)
        now[0] += 0.35 if len(times) == 2 else 0.01  # the second is held up
    np.testing.assert_allclose(times, [0.0, 0.1, 0.5, 0.6, 0.7, 0.8])
