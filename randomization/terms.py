"""Randomized dynamics as data: a dict of terms, each a random change of some entries of some model fields.

    terms = {"friction": friction(0.4, 1.2, "*_foot"), "payload": payload(-1.0, 3.0, "trunk")}
    dynamics = sample(key, terms, model)
    env = vectorize(task, 1024, Randomization(terms, model))

The parts of `sample` are functions of their own: `draw` gives normalised draws, `apply` turns them into model fields,
`extrinsics` into the vector that an adaptive policy or a privileged critic reads. Constructors are in `dynamics.py`.

Terms act in an order of their own: `set` before `scale` before `add`, then by name; vectors of draws are ordered by
name. The order of the dict means nothing, because JAX sorts the keys of every dict that passes through it.

Axes: R drawn rows (elements, or 1 if they share a draw), C drawn columns (components, or 1), E all draws of all terms,
V values drawn, N entries of all fields that terms change.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import zlib
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from jax.core import Tracer

from mjx_policies.envs.base import Draw
from mjx_policies.envs.physics.base import Dynamics, field_template
from mjx_policies.randomization import constants
from mjx_policies.types import Array

Operation = Literal["set", "scale", "add"]
Distribution = Literal["uniform", "log_uniform", "normal"]

OBJECTS = {
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "site": mujoco.mjtObj.mjOBJ_SITE,
    "jnt": mujoco.mjtObj.mjOBJ_JOINT,
    "dof": mujoco.mjtObj.mjOBJ_JOINT,
    "qpos0": mujoco.mjtObj.mjOBJ_JOINT,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "tendon": mujoco.mjtObj.mjOBJ_TENDON,
    "eq": mujoco.mjtObj.mjOBJ_EQUALITY,
    "pair": mujoco.mjtObj.mjOBJ_PAIR,
    "cam": mujoco.mjtObj.mjOBJ_CAMERA,
}
"""Whose names select the rows of a field, by the field's first word."""

POSITIVE = ("body_mass", "body_inertia")
NOT_NEGATIVE = ("geom_friction", "pair_friction", "dof_armature", "dof_damping", "dof_frictionloss", "jnt_stiffness")


@dataclasses.dataclass(frozen=True)
class Target:
    """The entries of one model field that a term changes.

    Attributes:
      field: MuJoCo's name, `opt.` in front for an option.
      columns: components changed, None for all.
      sign: what a drawn value is multiplied by in `set` and `add` (MuJoCo stores a servo's gain once with each sign).
    """

    field: str
    columns: tuple[int, ...] | None = None
    sign: float = 1.0


@struct.dataclass
class RandomizationTerm:
    """A random change of the model. The range is a leaf: it may be traced, grown by a curriculum, or batched by `vmap`.

    Attributes:
      low, high: range of the drawn value, [] or anything that broadcasts to [R, C]. Equal: no randomization.
      targets: what one draw changes, all of the same elements.
      names: elements by MuJoCo name, wildcards allowed (`"*_foot"`). None: every body but the world; every joint but
        free ones; every other element. Always None for options.
      operation: makes an entry `value` (set), `value` times what it was, or `value` more.
      distribution: `uniform`; `log_uniform`, uniform in the logarithm; `normal`, centred in the range and truncated at
        its ends, which lie `sigmas` standard deviations from the centre.
      sigmas: see `distribution`.
      shared: one draw for all elements, instead of one for each.
      per_component: one draw for each column, instead of one for all of them.
    """

    low: Array | np.ndarray | float
    high: Array | np.ndarray | float
    targets: tuple[Target, ...] = struct.field(pytree_node=False)
    names: tuple[str, ...] | None = struct.field(pytree_node=False, default=None)
    operation: Operation = struct.field(pytree_node=False, default="scale")
    distribution: Distribution = struct.field(pytree_node=False, default="uniform")
    sigmas: float = struct.field(pytree_node=False, default=2.0)
    shared: bool = struct.field(pytree_node=False, default=False)
    per_component: bool = struct.field(pytree_node=False, default=False)


Terms = Mapping[str, RandomizationTerm]


@struct.dataclass
class Randomization:
    """A `DynamicsSampler`: terms with the model they are for. Its ranges are leaves; the model is not."""

    terms: dict[str, RandomizationTerm]
    model: mujoco.MjModel = struct.field(pytree_node=False)

    def __call__(self, key: Array) -> Draw:
        """The robot of this key, see `sample`, and the draws behind it as a vector, see `extrinsics`."""
        draws = draw(key, self.terms, self.model)
        return Draw(apply(draws, self.terms, self.model), extrinsics(draws, self.terms))


def sample(key: Array, terms: Terms, model: mujoco.MjModel) -> Dynamics:
    """A random robot: the changed model fields, each whole, float32, with the constants MuJoCo derives from them.

    A term's draw depends on `key` and the term's name alone, so adding a term leaves the others as they were. A range
    of zero width (scale 1, add 0) gives the nominal model bit for bit.
    """
    return apply(draw(key, terms, model), terms, model)


def draw(key: Array, terms: Terms, model: mujoco.MjModel) -> dict[str, Array]:  # {name: [R, C]}
    """The draw of each term, normalised: -1 at the low end of its range, 1 at the high end."""
    check(terms, model)
    if not terms:
        return {}
    # One draw for all terms, cut to size, compiles a second faster than one each: a prefix of threefry's output does
    # not depend on the length asked for. crc32, because Python's own hash of a string changes from run to run.
    shapes = {name: _draw_shape(term, model) for name, term in terms.items()}
    hashes = jnp.asarray([zlib.crc32(name.encode()) for name in terms], jnp.uint32)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, hashes)
    longest = max(math.prod(shape) for shape in shapes.values())
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (longest,)))(keys)  # [terms, longest]
    draws = {}
    for row, (name, term) in zip(uniform, terms.items(), strict=True):
        u = row[: math.prod(shapes[name])].reshape(shapes[name])
        draws[name] = _truncated_normal(u, term.sigmas) / term.sigmas if term.distribution == "normal" else 2 * u - 1
    return draws


def _truncated_normal(uniform: Array, sigmas: float) -> Array:
    """A standard normal, cut at +-`sigmas`, from a uniform draw in [0, 1): its inverse distribution function."""
    edge = math.erf(sigmas / math.sqrt(2))
    return jnp.clip(math.sqrt(2) * jax.lax.erf_inv((2 * uniform - 1) * edge), -sigmas, sigmas)


def apply(draws: Mapping[str, Array], terms: Terms, model: mujoco.MjModel) -> Dynamics:
    """The model fields that the draws describe, each whole, with the constants that MuJoCo derives from them.

    Raises:
      ValueError: see `check`; or a draw is missing or not of the shape that `draw` gives it.
    """
    check(terms, model)
    for name, term in terms.items():
        expected, got = _draw_shape(term, model), np.shape(draws[name]) if name in draws else None
        if got != expected:
            raise ValueError(f"the draw of randomization term {name!r} has shape {got}, it must be {expected}")
    if not terms:
        return {}
    values = jnp.concatenate([_value(term, draws[name]).ravel() for name, term in _in_order(terms)])  # [V]
    nominal, layers = _layers(terms, model)
    entries = jnp.concatenate([jnp.asarray(field).ravel() for field in nominal.values()])  # [N]
    for layer in layers:
        entries = _operate(layer, entries, values)
    parts = jnp.split(entries, np.cumsum([field.size for field in nominal.values()])[:-1])
    dynamics = {name: part.reshape(nominal[name].shape) for name, part in zip(nominal, parts, strict=True)}
    return dynamics | constants.set_const(dynamics, model)


def extrinsics(draws: Mapping[str, Array], terms: Terms) -> Array:  # [E]
    """All draws as one vector in [-1, 1], ordered by name; zero where a range has no width.

    They say where in its range a robot lies: as a curriculum grows the ranges, the same number comes to mean more.
    """
    parts = [
        jnp.where(jnp.asarray(term.high) > jnp.asarray(term.low), draws[name], 0.0).ravel()
        for name, term in sorted(terms.items())
    ]
    return jnp.concatenate(parts) if parts else jnp.zeros(0)


def scale_ranges(terms: Terms, factor: Array | float) -> dict[str, RandomizationTerm]:
    """The terms with their ranges drawn towards the nominal robot (below 1) or away from it (above).

    A factor of 0 leaves the nominal robot, with all terms in place: it runs in the same compiled program.

    Raises:
      ValueError: a term sets a field instead of scaling or adding to it, so that nothing says what is nominal.
    """
    neutral = {"scale": 1.0, "add": 0.0}

    def scaled(name: str, term: RandomizationTerm) -> RandomizationTerm:
        if term.operation not in neutral:
            raise ValueError(f"randomization term {name!r} sets its field: its range cannot shrink to the nominal one")
        start = neutral[term.operation]
        low, high = (start + (bound - start) * factor for bound in (term.low, term.high))
        return dataclasses.replace(term, low=low, high=high)

    return {name: scaled(name, term) for name, term in terms.items()}


def check(terms: Terms, model: mujoco.MjModel) -> None:
    """Raises ValueError for fields and names that the model lacks, and for ranges that make no physical sense.

    Ranges are checked only where they are concrete numbers, not while they are traced.
    """
    for name, term in terms.items():
        for kind, known in ((term.operation, get_args(Operation)), (term.distribution, get_args(Distribution))):
            if kind not in known:
                raise ValueError(f"randomization term {name!r}: {kind!r} is not one of {', '.join(known)}")
    bounds: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}  # field -> lowest and highest value it can reach
    for name, term in _in_order(terms):
        where = f"randomization term {name!r}"
        concrete = not any(isinstance(x, Tracer) for x in (term.low, term.high))
        if concrete:
            _check_range(where, term)
        sizes = set()
        for target in term.targets:
            constants.check_field(where, target.field, model)
            rows, columns = _entries(term, target, model, where)
            sizes.add(len(rows))
            _check_entries(where, term, target, rows, columns, model)
        if len(sizes) != 1:
            raise ValueError(f"{where}: its targets select different numbers of elements {sorted(sizes)}")
        shape = _draw_shape(term, model)
        for end in (term.low, term.high):
            axes = zip(reversed(np.shape(end)), reversed(shape), strict=False)
            if np.ndim(end) > 2 or any(size not in (1, drawn) for size, drawn in axes):
                raise ValueError(f"{where}: a range of shape {np.shape(end)} does not broadcast to its draws {shape}")
        for target in term.targets:
            _check_bounds(where, term, target, bounds, concrete, model)


def _in_order(terms: Terms) -> list[tuple[str, RandomizationTerm]]:
    order = get_args(Operation)
    return sorted(terms.items(), key=lambda item: (order.index(item[1].operation), item[0]))


def _value(term: RandomizationTerm, u: Array) -> Array:  # [R, C] -> [R, C]
    low, high = (jnp.asarray(x, jnp.float32) for x in (term.low, term.high))
    portion = 0.5 * (u + 1.0)
    if term.distribution == "log_uniform":
        value = jnp.exp(jnp.log(low) + (jnp.log(high) - jnp.log(low)) * portion)
    else:
        value = low + (high - low) * portion
    return jnp.clip(value, low, high)  # exactly `low` in a range of zero width


class _Layer(NamedTuple):
    """A set of changes with at most one of each entry.

    Attributes:
      operation: [N] index in `Operation`, -1 where an entry stays.
      source: [N] which value changes it.
      sign: [N] float32, see `Target`.
    """

    operation: np.ndarray
    source: np.ndarray
    sign: np.ndarray


def _layers(terms: Terms, model: mujoco.MjModel) -> tuple[dict[str, np.ndarray], list[_Layer]]:
    """The fields that terms change, and their changes, those of one entry in the order of the terms.

    All entries together: a gather, an operation and a scatter for each of a dozen terms compile far later.
    """
    nominal = {
        target.field: field_template(model, target.field) for _, term in _in_order(terms) for target in term.targets
    }
    sizes = [field.size for field in nominal.values()]
    starts = dict(zip(nominal, np.cumsum(sizes) - sizes, strict=True))
    changes = np.zeros(sum(sizes), int)  # so far, of each entry
    layers: list[_Layer] = []
    first_value = 0
    for _, term in _in_order(terms):
        shape = _draw_shape(term, model)
        values = first_value + np.arange(math.prod(shape)).reshape(shape)
        first_value += math.prod(shape)
        for target in term.targets:
            rows, columns = _entries(term, target, model)
            _, width = _table_shape(nominal[target.field], target.field)
            entries = starts[target.field] + rows[:, None] * width + columns
            for depth in np.unique(changes[entries]):
                here = changes[entries] == depth
                if depth == len(layers):
                    none = np.full(changes.size, -1)
                    layers.append(_Layer(none, np.zeros_like(none), np.ones(none.size, np.float32)))
                layers[depth].operation[entries[here]] = get_args(Operation).index(term.operation)
                layers[depth].source[entries[here]] = np.broadcast_to(values, entries.shape)[here]
                layers[depth].sign[entries[here]] = target.sign
            changes[entries] += 1
    return nominal, layers


def _operate(layer: _Layer, entries: Array, values: Array) -> Array:  # [N], [V] -> [N]
    value = values[layer.source]
    signed = jnp.asarray(layer.sign) * value
    results: dict[Operation, Array] = {
        "set": signed,
        "scale": entries * value,
        "add": jnp.where(value == 0, entries, entries + signed),  # -0.0 stays -0.0
    }
    for operation, result in results.items():
        entries = jnp.where(layer.operation == get_args(Operation).index(operation), result, entries)
    return entries


def _table_shape(nominal: np.ndarray, field: str) -> tuple[int, int]:
    """Rows and columns of a field: elements by components, one row for an option."""
    rows = 1 if field.startswith("opt.") else nominal.shape[0]
    return rows, nominal.size // max(rows, 1)


def _draw_shape(term: RandomizationTerm, model: mujoco.MjModel) -> tuple[int, int]:  # R, C
    rows, columns = _entries(term, term.targets[0], model)
    return (1 if term.shared else len(rows)), (len(columns) if term.per_component else 1)


def _entries(
    term: RandomizationTerm, target: Target, model: mujoco.MjModel, where: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows and of the columns that a term changes."""
    nominal = field_template(model, target.field)
    rows = _rows(target.field, term.names, model, where)
    _, width = _table_shape(nominal, target.field)
    columns = np.arange(width) if target.columns is None else np.asarray(target.columns)
    if columns.size == 0 or columns.min() < 0 or columns.max() >= width:
        raise ValueError(f"{where}: {target.field} has columns 0 to {width - 1}, not {target.columns}")
    return rows, columns


def _rows(field: str, names: tuple[str, ...] | None, model: mujoco.MjModel, where: str) -> np.ndarray:
    if field.startswith("opt."):
        if names is not None:
            raise ValueError(f"{where}: {field} belongs to the whole model, it has no elements to name")
        return np.zeros(1, int)
    kind = field.split("_")[0]
    if kind == "qpos":
        kind = "qpos0"
    if kind not in OBJECTS:
        raise ValueError(f"{where}: the rows of {field} have no names; fields that do begin with {', '.join(OBJECTS)}")
    ids = _ids(OBJECTS[kind], names, model, where)
    if kind in ("dof", "qpos0"):
        starts, total = (model.jnt_dofadr, model.nv) if kind == "dof" else (model.jnt_qposadr, model.nq)
        joints = np.repeat(np.arange(model.njnt), np.diff(np.append(starts, total)))  # the joint of each row
        return np.flatnonzero(np.isin(joints, ids))
    return ids


def _ids(kind: mujoco.mjtObj, names: tuple[str, ...] | None, model: mujoco.MjModel, where: str) -> np.ndarray:
    count = {
        mujoco.mjtObj.mjOBJ_BODY: model.nbody,
        mujoco.mjtObj.mjOBJ_GEOM: model.ngeom,
        mujoco.mjtObj.mjOBJ_SITE: model.nsite,
        mujoco.mjtObj.mjOBJ_JOINT: model.njnt,
        mujoco.mjtObj.mjOBJ_ACTUATOR: model.nu,
        mujoco.mjtObj.mjOBJ_TENDON: model.ntendon,
        mujoco.mjtObj.mjOBJ_EQUALITY: model.neq,
        mujoco.mjtObj.mjOBJ_PAIR: model.npair,
        mujoco.mjtObj.mjOBJ_CAMERA: model.ncam,
    }[kind]
    what = kind.name.removeprefix("mjOBJ_").lower()
    if names is None:
        ids = np.arange(count)
        if kind == mujoco.mjtObj.mjOBJ_BODY:
            ids = ids[1:]
        if kind == mujoco.mjtObj.mjOBJ_JOINT:
            ids = ids[model.jnt_type != mujoco.mjtJoint.mjJNT_FREE]
        if ids.size == 0:
            raise ValueError(f"{where}: the model has no {what} to randomize")
        return ids
    existing = [mujoco.mj_id2name(model, kind.value, i) or "" for i in range(count)]
    chosen = set()
    for name in names:
        matches = {i for i, other in enumerate(existing) if other and fnmatch.fnmatchcase(other, name)}
        if not matches:
            listed = ", ".join(other for other in existing if other) or "none with a name"
            raise ValueError(f"{where}: the model has no {what} {name!r}; it has {listed}")
        chosen |= matches
    return np.array(sorted(chosen), int)


def _check_range(where: str, term: RandomizationTerm) -> None:
    low, high = np.asarray(term.low), np.asarray(term.high)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"{where}: its range must be finite, it is {term.low} to {term.high}")
    if (low > high).any():
        raise ValueError(f"{where}: its range begins above its end ({term.low} > {term.high})")
    if term.operation == "scale" and (low <= 0).any():
        raise ValueError(f"{where}: a scale must be positive, its range begins at {term.low}")
    if term.distribution == "log_uniform" and (low <= 0).any():
        raise ValueError(f"{where}: a log-uniform range must be positive, it begins at {term.low}")
    if term.distribution == "normal" and term.sigmas <= 0:
        raise ValueError(f"{where}: sigmas must be positive, it is {term.sigmas}")


def _check_entries(where, term: RandomizationTerm, target: Target, rows, columns, model: mujoco.MjModel) -> None:
    """Changes that a backend would ignore or get wrong."""
    field = target.field
    nominal = field_template(model, field)
    entries = nominal.reshape(_table_shape(nominal, field))[rows[:, None], columns]
    if term.operation == "scale" and not entries.any():
        raise ValueError(f"{where}: {field} is zero in the model, so scaling it changes nothing; set or add instead")
    if field == "dof_frictionloss" and not entries.all():
        raise ValueError(
            f"{where}: dof_frictionloss is zero for some of these joints in the model, and MJX leaves out the "
            "constraint of such a joint when it compiles; give them a small nominal frictionloss"
        )
    if field == "actuator_forcerange" and not model.actuator_forcelimited[rows].all():
        raise ValueError(f"{where}: some of these actuators have no force limit (forcelimited is false)")
    if field in ("body_ipos", "body_iquat") and model.body_simple[rows].any():
        raise ValueError(
            f"{where}: some of these bodies are 'simple' (centred, without children), so the engine takes their "
            "inertia matrix for diagonal; give them an inertial frame slightly off the body frame"
        )


def _check_bounds(
    where, term: RandomizationTerm, target: Target, bounds, concrete: bool, model: mujoco.MjModel
) -> None:
    """Follows the interval that each entry can reach, through all terms that touch the field."""
    field = target.field
    if field not in (*POSITIVE, *NOT_NEGATIVE):
        return
    if not concrete:
        bounds[field] = None
    nominal = field_template(model, field)
    if bounds.setdefault(field, (nominal, nominal)) is None:
        return
    rows, columns = _entries(term, target, model)
    ends = []
    for bound, end in zip(bounds[field], (term.low, term.high), strict=True):
        table = bound.reshape(_table_shape(nominal, field)).copy()
        entries = table[rows[:, None], columns]
        value = np.broadcast_to(np.asarray(end, np.float32), entries.shape)
        changed = {"set": value, "add": entries + value, "scale": entries * value}[term.operation]
        table[rows[:, None], columns] = changed
        lowest = changed.min(initial=np.inf, where=(entries > 0) | (field not in POSITIVE))
        if lowest < 0 or (field in POSITIVE and lowest <= 0):
            raise ValueError(f"{where}: {field} could become {lowest:g}, it must {_must(field)}")
        ends.append(table.reshape(nominal.shape))
    bounds[field] = (ends[0], ends[1])


def _must(field: str) -> str:
    return "stay positive" if field in POSITIVE else "not be negative"
