"""Forward kinematics in JAX: where bodies, geometries and cameras are, given only the joint coordinates.

The chapter of MuJoCo's documentation is Computation / Kinematics; `mj_kinematics` and `mj_camlight` are the reference.
Lengths in m, quaternions (w, x, y, z), matrices turn local vectors into world vectors.
Axes: nbody bodies, ngeom geometries, ncam cameras.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mjx_policies.rotations import multiply, rotate
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


def forward_kinematics(model: mujoco.MjModel, qpos: Array, mocap_pos: Array | None = None) -> Poses:  # [nq]
    """World poses for joint coordinates `qpos` [nq]; write for one robot, batch with `vmap`.

    Mocap bodies are at `mocap_pos` [nmocap, 3], turned as the model has them; without it they stay where the model
    puts them. Raises AssertionError unless both have their shapes.
    """
    chex.assert_shape(qpos, (model.nq,))
    body_pos = _constant(model.body_pos)
    if mocap_pos is not None:
        chex.assert_shape(mocap_pos, (model.nmocap, 3))
        mocap = np.flatnonzero(model.body_mocapid >= 0)
        body_pos = body_pos.at[mocap].set(mocap_pos[model.body_mocapid[mocap]])
    xpos, xquat = _bodies(model, qpos, body_pos)
    geom_xpos = _attach(xpos, xquat, model.geom_bodyid, model.geom_pos)
    geom_xmat = _attach_matrix(xquat, model.geom_bodyid, model.geom_quat)
    cam_xpos, cam_xmat = _cameras(model, xpos, xquat)
    return Poses(xpos, xquat, geom_xpos, geom_xmat, cam_xpos, cam_xmat)


def _bodies(model: mujoco.MjModel, qpos: Array, body_pos: Array) -> tuple[Array, Array]:  # -> [nbody, 3], [nbody, 4]
    """Places all bodies of equal depth in the tree at once, from the world outwards."""
    depth = np.zeros(model.nbody, int)
    for body in range(1, model.nbody):
        depth[body] = depth[model.body_parentid[body]] + 1
    row = np.argsort(np.argsort(depth, kind="stable"))  # of each body among those placed so far
    xpos, xquat = jnp.zeros((1, 3)), jnp.array([[1.0, 0.0, 0.0, 0.0]])
    for bodies in (np.flatnonzero(depth == d) for d in range(1, depth.max() + 1)):
        parents = row[model.body_parentid[bodies]]
        pos = _attach(xpos, xquat, parents, body_pos[bodies])
        quat = jax.vmap(multiply)(xquat[parents], _constant(model.body_quat[bodies]))
        for number in range(model.body_jntnum[bodies].max()):
            pos, quat = _move(model, bodies, number, qpos, pos, quat)
        xpos, xquat = jnp.concatenate([xpos, pos]), jnp.concatenate([xquat, _normalise(quat)])
    return xpos[row], xquat[row]


def _move(
    model: mujoco.MjModel, bodies: np.ndarray, number: int, qpos: Array, pos: Array, quat: Array
) -> tuple[Array, Array]:
    """Applies the joint of this number to the poses of those bodies that have it."""
    present = number < model.body_jntnum[bodies]
    kinds = np.where(present, model.jnt_type[model.body_jntadr[bodies] + number * present], -1)
    for kind, (width, motion) in MOTIONS.items():
        which = np.flatnonzero(kinds == kind)
        if which.size:
            joints = model.body_jntadr[bodies[which]] + number
            address = model.jnt_qposadr[joints][:, None] + np.arange(width)
            reference, anchor = _constant(model.qpos0[address]), _constant(model.jnt_pos[joints])
            axis = _constant(model.jnt_axis[joints])
            moved = jax.vmap(motion)(qpos[address], reference, anchor, axis, pos[which], quat[which])
            everyone = which.size == bodies.size
            pos, quat = moved if everyone else (pos.at[which].set(moved[0]), quat.at[which].set(moved[1]))
    return pos, quat


def _free(coordinate: Array, reference: Array, anchor: Array, axis: Array, pos: Array, quat: Array):
    return coordinate[:3], _normalise(coordinate[3:])


def _slide(coordinate: Array, reference: Array, anchor: Array, axis: Array, pos: Array, quat: Array):
    return pos + rotate(axis, quat) * (coordinate - reference), quat


def _ball(coordinate: Array, reference: Array, anchor: Array, axis: Array, pos: Array, quat: Array):
    turned = multiply(quat, _normalise(coordinate))
    return pos + rotate(anchor, quat) - rotate(anchor, turned), turned  # the anchor stays in place


def _hinge(coordinate: Array, reference: Array, anchor: Array, axis: Array, pos: Array, quat: Array):
    half = (coordinate - reference) / 2
    return _ball(jnp.concatenate([jnp.cos(half), jnp.sin(half) * axis]), reference, anchor, axis, pos, quat)


MOTIONS = {
    mujoco.mjtJoint.mjJNT_FREE: (7, _free),
    mujoco.mjtJoint.mjJNT_BALL: (4, _ball),
    mujoco.mjtJoint.mjJNT_SLIDE: (1, _slide),
    mujoco.mjtJoint.mjJNT_HINGE: (1, _hinge),
}
"""For each kind of joint the number of its coordinates, and how it moves the pose of a body."""


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
    mat = _attach_matrix(xquat, body, model.cam_quat)
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


def _attach(xpos: Array, xquat: Array, body: np.ndarray, local: np.ndarray | Array) -> Array:
    return xpos[body] + jax.vmap(rotate)(_constant(local), xquat[body])


def _attach_matrix(xquat: Array, body: np.ndarray, local: np.ndarray) -> Array:
    return jax.vmap(lambda a, b: _matrix(multiply(a, b)))(xquat[body], _constant(local))


def _constant(value: np.ndarray | Array) -> Array:
    return jnp.asarray(value, jnp.float32)


def _normalise(vector: Array) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)


def _matrix(quat: Array) -> Array:  # [4] -> [3, 3]
    return jnp.stack([rotate(axis, quat) for axis in jnp.eye(3)], axis=-1)
