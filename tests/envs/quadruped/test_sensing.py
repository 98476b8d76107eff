"""The motion of a quadruped's trunk against MuJoCo's sensors."""

from types import SimpleNamespace

import jax.numpy as jnp
import mujoco
import numpy as np

from mjx_policies.envs.quadruped.scenes import flat
from mjx_policies.envs.quadruped.sensing import trunk_motion


def test_the_trunk_moves_as_the_sensors_of_mujoco_say():
    model, rng = flat(), np.random.default_rng(0)
    data = mujoco.MjData(model)
    for _ in range(20):
        data.qpos[:] = rng.normal(size=model.nq)  # its quaternion is not of unit length
        data.qvel[:] = rng.normal(size=model.nv)
        coordinates = SimpleNamespace(qpos=jnp.asarray(data.qpos), qvel=jnp.asarray(data.qvel))
        mujoco.mj_forward(model, data)
        trunk = trunk_motion(model, coordinates)
        np.testing.assert_allclose(trunk.gyro, data.sensor("gyro").data, atol=1e-5)
        np.testing.assert_allclose(trunk.velocity, data.sensor("local_linvel").data, atol=1e-5)
        np.testing.assert_allclose(trunk.position, data.site("imu").xpos, atol=1e-5)
        np.testing.assert_allclose(trunk.gravity, -data.site("imu").xmat.reshape(3, 3)[2], atol=1e-5)
