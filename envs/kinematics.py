"""Forward kinematics in JAX: where bodies, geometries and cameras are, given only the joint coordinates.

The chapter of MuJoCo's documentation is Computation / Kinematics; `mj_kinematics` and `mj_camlight` are the reference.
Lengths in m, quaternions (w, x, y, z), matrices turn local vectors into world vectors.
Axes: nbody bodies, ngeom geometries, ncam cameras.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp
import mujoco
import numpy as np

from mjx_policies.types import Array


class Poses(NamedTuple):
    """World poses of everything that a picture needs; MuJoCo's names, matrices as 3 by 3.

    Attributes:
      xpos, xquat: [nbody, 3] and [nbody, 4], body frames.
      geom_xpos, geom_xmat: [ngeom, 3] and [ngeom, 3, 3].
      cam_xpos, cam_xmat: [ncam, 3] and [ncam, 3, 3]; columns are right, up and backward.
    """

    xpos: Array
    xquat: Array
    geom_xpos: Array
    geom_xmat: Array
    cam_xpos: Array
    cam_xmat: Array


def forward_kinematics(model: mujoco.MjModel, qpos: Array) -> Poses:  # [nq]
    """World poses for joint coordinates `qpos` [nq]; write for one robot, batch with `vmap`.

    Mocap bodies stay where the model puts them. Raises AssertionError unless `qpos` has shape [nq].
    """
    chex.assert_shape(qpos, (model.nq,))
    xpos, xquat = _bodies(model, qpos)
    geom_xpos = _attach(xpos, xquat, model.geom_bodyid, model.geom_pos)
    geom_xmat = _matrix(_multiply(xquat[model.geom_bodyid], _constant(model.geom_quat)))
    cam_xpos, cam_xmat = _cameras(model, xpos, xquat)
    return Poses(xpos, xquat, geom_xpos, geom_xmat, cam_xpos, cam_xmat)


def geom_poses(model: mujoco.MjModel, qpos: Array) -> tuple[Array, Array]:
    """`geom_xpos` [ngeom, 3] and `geom_xmat` [ngeom, 3, 3] for joint coordinates `qpos` [nq]."""
    poses = forward_kinematics(model, qpos)
    return poses.geom_xpos, poses.geom_xmat


def _bodies(model: mujoco.MjModel, qpos: Array) -> tuple[Array, Array]:  # -> [nbody, 3], [nbody, 4]
    xpos, xquat = [jnp.zeros(3)], [jnp.array([1.0, 0.0, 0.0, 0.0])]
    for body in range(1, model.nbody):
        parent = model.body_parentid[body]
        quat = _multiply(xquat[parent], _constant(model.body_quat[body]))
        pos = xpos[parent] + _rotate(xquat[parent], _constant(model.body_pos[body]))
        first = model.body_jntadr[body]
        for joint in range(first, first + model.body_jntnum[body]):
            pos, quat = _move(model, joint, qpos, pos, quat)
        xpos.append(pos)
        xquat.append(_normalise(quat))
    return jnp.stack(xpos), jnp.stack(xquat)


def _move(model: mujoco.MjModel, joint: int, qpos: Array, pos: Array, quat: Array) -> tuple[Array, Array]:
    """Applies one joint to the pose of its body."""
    address, kind = model.jnt_qposadr[joint], model.jnt_type[joint]
    if kind == mujoco.mjtJoint.mjJNT_FREE:
        return qpos[address : address + 3], _normalise(qpos[address + 3 : address + 7])
    anchor, axis = _constant(model.jnt_pos[joint]), _constant(model.jnt_axis[joint])
    if kind == mujoco.mjtJoint.mjJNT_SLIDE:
        return pos + _rotate(quat, axis) * (qpos[address] - model.qpos0[address]), quat
    if kind == mujoco.mjtJoint.mjJNT_BALL:
        turn = _normalise(qpos[address : address + 4])
    else:
        half = 0.5 * (qpos[address] - model.qpos0[address])
        turn = jnp.concatenate([jnp.cos(half)[None], jnp.sin(half) * axis])
    turned = _multiply(quat, turn)
    return pos + _rotate(quat, anchor) - _rotate(turned, anchor), turned  # the anchor stays in place


def _cameras(model: mujoco.MjModel, xpos: Array, xquat: Array) -> tuple[Array, Array]:  # -> [ncam, 3], [ncam, 3, 3]
    if not model.ncam:
        return jnp.zeros((0, 3)), jnp.zeros((0, 3, 3))
    body, mode = model.cam_bodyid, model.cam_mode
    light = mujoco.mjtCamLight
    following = np.isin(mode, (light.mjCAMLIGHT_TRACK, light.mjCAMLIGHT_TRACKCOM))
    aiming = np.isin(mode, (light.mjCAMLIGHT_TARGETBODY, light.mjCAMLIGHT_TARGETBODYCOM)) & (
        model.cam_targetbodyid >= 0
    )
    by_mass = np.isin(mode, (light.mjCAMLIGHT_TRACKCOM, light.mjCAMLIGHT_TARGETBODYCOM))

    pos = _attach(xpos, xquat, body, model.cam_pos)
    mat = _matrix(_multiply(xquat[body], _constant(model.cam_quat)))
    com = _subtree_com(model, xpos, xquat) if by_mass.any() else xpos
    if following.any():
        offset = np.where(by_mass[:, None], model.cam_poscom0, model.cam_pos0)
        centre = jnp.where(by_mass[:, None], com[body], xpos[body])
        pos = jnp.where(following[:, None], centre + _constant(offset), pos)
        mat = jnp.where(following[:, None, None], _constant(model.cam_mat0).reshape(-1, 3, 3), mat)
    if aiming.any():
        target = jnp.where(by_mass[:, None], com[model.cam_targetbodyid], xpos[model.cam_targetbodyid])
        mat = jnp.where(aiming[:, None, None], facing(target - pos), mat)
    return pos, mat


def facing(forward: Array) -> Array:  # [..., 3] -> [..., 3, 3]
    """Camera matrix that looks along `forward` with the horizon level; columns are right, up and backward.

    Looking exactly along the world's z axis, the picture's upper edge points along the world's y axis.
    """
    backward = -_normalise(forward)
    vertical = jnp.abs(backward[..., 2:]) > 1 - 1e-6
    side = jnp.stack(
        [-backward[..., 1], backward[..., 0], jnp.zeros_like(backward[..., 0])], axis=-1
    )  # z axis x backward
    right = _normalise(jnp.where(vertical, jnp.zeros_like(side).at[..., 0].set(1.0), side))
    return jnp.stack([right, jnp.cross(backward, right), backward], axis=-1)


def _subtree_com(model: mujoco.MjModel, xpos: Array, xquat: Array) -> Array:  # [nbody, 3]
    below = np.eye(model.nbody)  # below[a, b]: body b is body a or hangs from it
    for body in range(model.nbody - 1, 0, -1):
        below[model.body_parentid[body]] += below[body]
    weight = below * model.body_mass[None, :]
    total = weight.sum(axis=1, keepdims=True)
    weight = np.where(total > mujoco.mjMINVAL, weight / np.maximum(total, mujoco.mjMINVAL), np.eye(model.nbody))
    xipos = _attach(xpos, xquat, np.arange(model.nbody), model.body_ipos)
    return jnp.sum(_constant(weight)[:, :, None] * xipos[None], axis=1)


def _attach(xpos: Array, xquat: Array, body: np.ndarray, local: np.ndarray) -> Array:
    return xpos[body] + _rotate(xquat[body], _constant(local))


def _constant(value: np.ndarray) -> Array:
    return jnp.asarray(value, jnp.float32)


# Sums of products instead of matrix products: accelerators may round the factors of the latter to fewer bits.


def _normalise(vector: Array) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)


def _multiply(p: Array, q: Array) -> Array:  # [..., 4], [..., 4] -> [..., 4]
    """Hamilton product: first turn by q, then by p."""
    w, u = p[..., :1], p[..., 1:]
    x, v = q[..., :1], q[..., 1:]
    return jnp.concatenate([w * x - jnp.sum(u * v, axis=-1, keepdims=True), w * v + x * u + jnp.cross(u, v)], axis=-1)


def _rotate(quat: Array, vector: Array) -> Array:  # [..., 4], [..., 3] -> [..., 3]
    w, u = quat[..., :1], quat[..., 1:]
    twice = 2 * jnp.cross(u, vector)
    return vector + w * twice + jnp.cross(u, twice)


def _matrix(quat: Array) -> Array:  # [..., 4] -> [..., 3, 3]
    axes = (jnp.broadcast_to(axis, (*quat.shape[:-1], 3)) for axis in jnp.eye(3))
    return jnp.stack([_rotate(quat, axis) for axis in axes], axis=-1)
