import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.deploy.robot import Targets
from mjx_policies.deploy.simulation.arm import SimulatedArm
from mjx_policies.deploy.simulation.robot import Faults
from mjx_policies.envs.franka.actions import action_space
from mjx_policies.envs.franka.robot import ACTUATORS, DAMPING, OPENING, STIFFNESS
from mjx_policies.envs.franka.scenes import READY, pick_cube
from mjx_policies.types import actuator_targets

MODEL = pick_cube(lean=True)
DT = MODEL.opt.timestep
POSE = np.array([*READY, OPENING])
AT_REST = np.array([*READY, OPENING, OPENING, 0.5, 0.1, 0.02, np.cos(0.3), 0, 0, np.sin(0.3)])


def arm(**more):
    made = SimulatedArm(MODEL, ACTUATORS, things=("cube",), **more)
    made.reset(AT_REST)
    return made


def targets(position):
    return Targets(np.array(position), np.array(STIFFNESS), np.array(DAMPING))


def test_targets_move_as_in_training():
    """The action space's rows for a period, of which the first begins where the arm is."""
    robot, space = arm(), action_space("joint_target", 0.05)
    target, random = space.init(jnp.asarray(READY), jnp.asarray(OPENING)), np.random.default_rng(0)
    for _ in range(4):
        action = (np.asarray(actuator_targets(space.table, jnp.zeros(8))) * 0 + random.uniform(-0.3, 0.3, 8)).astype(
            np.float32
        )
        target, rows = space.command(target, jnp.tile(action, (10, 1)))
        robot.write(targets(np.asarray(target)))
        for row in rows:
            robot.advance(DT)
            np.testing.assert_allclose(robot.data.ctrl, row, atol=1e-6)
    robot.advance(DT)
    np.testing.assert_allclose(robot.data.ctrl, target, atol=1e-6)  # and stay there


def test_an_arm_that_was_led_elsewhere_sets_out_from_there():
    robot = arm()
    robot.write(targets(POSE))
    robot.advance(0.5)  # nobody writes: the servos let go
    assert robot.damped
    robot.data.qvel[0] = 1.0
    robot.advance(0.2)
    angle = robot.data.qpos[0]
    assert angle > 0.05
    robot.write(targets(POSE))
    robot.advance(DT)
    assert robot.data.ctrl[0] == pytest.approx(0.9 * angle)


def test_the_tracker_sees_the_cube_as_late_as_everything_else():
    robot = arm(faults=Faults(observation_latency=0.05))
    robot.data.qvel[9] = 0.5  # slides along x
    robot.write(targets(POSE))
    seen = []
    for _ in range(12):
        robot.advance(DT)
        seen.append(robot.data.qpos.copy())
    reading = robot.read()
    assert 0.05 <= robot.time() - reading.stamp <= 0.05 + DT + 1e-9
    then = seen[round(reading.stamp / DT) - 1]
    np.testing.assert_allclose(reading.values["cube_position"], then[9:12], atol=1e-12)
    np.testing.assert_allclose(reading.values["cube_orientation"], then[12:16], atol=1e-12)
    assert abs(then[9] - seen[-1][9]) > 0.01


def test_a_gripper_is_the_mean_of_its_fingers():
    robot = arm()
    qpos, qvel = AT_REST.copy(), np.zeros(MODEL.nv)
    qpos[7:9], qvel[7:9] = (0.02, 0.03), (0.1, 0.2)
    robot.reset(qpos, qvel)
    values = robot.sense()
    assert values["joint_position"][7] == pytest.approx(0.025) and values["joint_velocity"][7] == pytest.approx(0.15)
    np.testing.assert_array_equal(values["joint_position"][:7], qpos[:7])


def test_noise_of_a_tracker_leaves_orientations_of_unit_length():
    robot = arm(faults=Faults(noise={"cube_orientation": 0.1, "cube_position": 0.01}))
    robot.advance(DT)
    values = robot.read().values
    assert np.linalg.norm(values["cube_orientation"]) == pytest.approx(1)
    assert 0 < np.abs(values["cube_position"] - robot.data.qpos[9:12]).max() < 0.01


def test_a_body_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"no body 'peg' to be tracked; it has link0, .*cube, goal"):
        SimulatedArm(MODEL, ACTUATORS, things=("peg",))
