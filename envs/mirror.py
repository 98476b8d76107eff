"""The left-right reflection of a robot, derived from its tables and the names of its model.

Reflected at the xz plane, vectors flip y, pseudovectors (rotation axes, angular velocities) flip x and z, and what
belongs to a left leg changes places with the right one. Axes: D observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import mujoco
import numpy as np

from mjx_policies.envs.base import EnvSpec
from mjx_policies.spec import Table
from mjx_policies.types import Array, Observation

_SIGNS = {"vector": (1, -1, 1), "pseudovector": (-1, 1, -1), "planar_twist": (1, -1, -1), "gait": (-1, -1)}
_SWAP = str.maketrans("LR", "RL")


def mirror_joints(names: tuple[str, ...], model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:  # [A], [A]
    """For each joint, the joint that its mirrored value comes from, and its sign.

    Joint angles are pseudovectors along the joint axis: a pair mirrors with sign +1 if the reflection carries one axis
    into the other, -1 if into its opposite.

    Args:
      names: actuators, in order; the leg stands first and ends in L or R (`FL_hip`).
      model: holds the axes of the joints they drive.
    """
    source = np.asarray([names.index(_mirror_name(name, names)) for name in names])
    axes = np.stack([model.jnt_axis[model.actuator(name).trnid[0]] for name in names])
    sign = np.sum(axes * (axes[source] * _SIGNS["pseudovector"]), axis=1)
    if not np.allclose(np.abs(sign), 1.0, atol=1e-6):
        raise ValueError(f"the joint axes of {names} do not mirror into each other")
    return source, np.round(sign).astype(np.float32)


def mirror_table(table: Table, spec: EnvSpec, model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:  # [D], [D]
    """For each entry, the entry that its mirrored value comes from, and its sign."""
    source, sign, start = [], [], 0
    for term in table:
        index, flip = np.arange(term.size), np.ones(term.size)
        if term.kind in _SIGNS:
            flip = np.asarray(_SIGNS[term.kind])
        elif term.kind == "joints":
            index, flip = mirror_joints(spec.action.names, model)
        elif term.kind == "feet":
            legs = tuple(dict.fromkeys(name.split("_")[0] for name in spec.action.names))
            index = np.asarray([legs.index(_mirror_name(leg, legs)) for leg in legs])
        if len(index) != term.size:
            raise ValueError(f"term {term.name!r} is of kind {term.kind!r} but has {term.size} entries")
        source.append(start + index)
        sign.append(flip)
        start += term.size
    return np.concatenate(source), np.concatenate(sign).astype(np.float32)


def mirror_rows(table: Table, spec: EnvSpec, model: mujoco.MjModel) -> Callable[[Array], Array]:
    """The function from values in the order of a table [..., D] to the mirrored robot's."""
    return _reflection(*mirror_table(table, spec, model))


def mirror_observation(spec: EnvSpec, model: mujoco.MjModel) -> Callable[[Observation], Observation]:
    """The function from an observation to what the mirrored robot would observe; entries without a table stay."""
    maps = {"state": mirror_rows(spec.observation, spec, model)}
    if spec.privileged:
        maps["privileged"] = mirror_rows(spec.privileged, spec, model)
    return lambda obs: {name: maps[name](value) if name in maps else value for name, value in obs.items()}


def mirror_action(spec: EnvSpec, model: mujoco.MjModel) -> Callable[[Array], Array]:
    """The function from an action to the mirrored robot's; the default pose must mirror into itself."""
    source, sign = mirror_joints(spec.action.names, model)
    default = np.asarray(spec.action.default)
    if not np.allclose(sign * default[source], default):
        raise ValueError("the default pose is not symmetric, so actions do not mirror; use no symmetry loss")

    return _reflection(source, sign)


def _reflection(source: np.ndarray, sign: np.ndarray) -> Callable[[Array], Array]:
    """A product with a signed permutation, exact in float32: XLA compiles it far sooner than slices or a gather."""
    matrix = np.zeros((source.size, source.size), np.float32)
    matrix[source, np.arange(source.size)] = sign

    def reflect(rows: Array) -> Array:
        return jnp.matmul(rows, matrix, precision="highest")  # a GPU would round to TF32

    return reflect


def _mirror_name(name: str, names: tuple[str, ...]) -> str:
    leg, *rest = name.split("_")
    other = "_".join([leg[:-1] + leg[-1].translate(_SWAP), *rest])  # the last letter: an RL leg is the rear left one
    if other == name or other not in names:
        raise ValueError(f"{name!r} has no mirror image {other!r} among {', '.join(names)}")
    return other
