import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.rendering.kinematics import facing, forward_kinematics

MODEL = mujoco.MjModel.from_xml_string("""
<mujoco>
  <worldbody>
    <geom type="plane" size="1 1 1" pos="0 0 -1"/>
    <camera name="world" pos="1 2 3" euler="10 20 30"/>
    <camera name="lookout" mode="targetbody" target="arm" pos="-2 1 1"/>
    <body name="base" pos=".1 .2 .3" euler="10 20 30">
      <freejoint/>
      <inertial pos=".1 0 .2" mass="3" diaginertia="1 1 1"/>
      <geom type="box" size=".1 .2 .3" pos=".3 .1 0" euler="5 0 40"/>
      <camera name="head" pos=".3 0 .1" euler="80 0 -80"/>
      <camera name="track" mode="track" pos="0 -1 1" euler="40 0 0"/>
      <camera name="trackcom" mode="trackcom" pos="0 -1 1" euler="40 0 0"/>
      <camera name="targetcom" mode="targetbodycom" target="base" pos="0 -1 1"/>
      <body name="arm" pos="0 .4 0" quat=".9 .1 .2 .3">
        <joint type="hinge" axis="1 2 3" pos=".1 .2 .1" ref="20"/>
        <joint type="slide" axis="0 1 1" ref=".3"/>
        <joint type="hinge" axis="0 0 1"/>
        <geom size=".1" pos="0 .1 0" mass="1"/>
        <body pos="0 0 .5">
          <joint type="ball" pos=".05 .1 .2"/>
          <geom type="capsule" fromto="0 0 0 .2 .3 .4" size=".05" mass="2"/>
        </body>
      </body>
    </body>
    <body mocap="true" pos="3 2 1" euler="0 50 0"><geom size=".2"/></body>
    <body mocap="true" pos="1 2 3"><geom pos=".1 0 0" size=".2"/></body>
  </worldbody>
</mujoco>
""")


def test_poses_are_those_of_mujoco():
    data, rng = mujoco.MjData(MODEL), np.random.default_rng(0)
    kinematics = jax.jit(lambda qpos: forward_kinematics(MODEL, qpos))
    for _ in range(5):
        qpos = rng.normal(size=MODEL.nq)  # quaternions of any length, as MuJoCo allows
        data.qpos = qpos
        mujoco.mj_forward(MODEL, data)
        poses = kinematics(jnp.asarray(qpos, jnp.float32))
        for name in poses._fields:
            expected = np.reshape(getattr(data, name), getattr(poses, name).shape)
            np.testing.assert_allclose(getattr(poses, name), expected, atol=5e-6, err_msg=name)  # float32


def test_mocap_bodies_are_where_they_are_put():
    data, rng = mujoco.MjData(MODEL), np.random.default_rng(1)
    data.qpos, data.mocap_pos = rng.normal(size=MODEL.nq), rng.normal(size=(MODEL.nmocap, 3))
    mujoco.mj_forward(MODEL, data)
    poses = forward_kinematics(MODEL, jnp.asarray(data.qpos, jnp.float32), jnp.asarray(data.mocap_pos, jnp.float32))
    np.testing.assert_allclose(poses.xpos, data.xpos, atol=5e-6)
    np.testing.assert_allclose(poses.geom_xpos, data.geom_xpos, atol=5e-6)


def test_a_model_without_cameras_has_no_camera_poses():
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    poses = forward_kinematics(model, jnp.zeros(0))
    assert poses.cam_xpos.shape == (0, 3) and poses.cam_xmat.shape == (0, 3, 3)


def test_coordinates_of_another_size_are_refused():
    with pytest.raises(AssertionError):
        forward_kinematics(MODEL, jnp.zeros(3))
    with pytest.raises(AssertionError):
        forward_kinematics(MODEL, jnp.zeros(MODEL.nq), jnp.zeros((MODEL.nmocap + 1, 3)))


@pytest.mark.parametrize("forward", [(1.0, 2.0, -0.5), (0.0, 0.0, -1.0), (0.0, 0.0, 2.0)])
def test_facing_is_a_rotation_that_looks_forward(forward):
    mat = np.asarray(facing(jnp.array(forward)))
    np.testing.assert_allclose(mat.T @ mat, np.eye(3), atol=1e-6)
    assert np.linalg.det(mat) > 0
    np.testing.assert_allclose(-mat[:, 2], forward / np.linalg.norm(forward), atol=1e-6)
