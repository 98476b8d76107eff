"""Terms for what is uncertain about a robot. Each is a `RandomizationTerm` whose range is given in the unit stated.

`scale` multiplies the model's value, `add` is added to it, `set` replaces it. Names may hold wildcards; None means all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mjx_policies.randomization.terms import Distribution, Operation, RandomizationTerm, Target
from mjx_policies.types import Array

Names = str | Iterable[str] | None
Range = float | Sequence[float] | Array


def term(
    field: str,
    low: Range,
    high: Range,
    names: Names = None,
    *,
    columns: Iterable[int] | None = None,
    operation: Operation = "scale",
    distribution: Distribution = "uniform",
    sigmas: float = 2.0,
    shared: bool = False,
    per_component: bool = False,
) -> RandomizationTerm:
    """Any float field of the model; the arguments are those of `RandomizationTerm`."""
    target = Target(field, None if columns is None else tuple(columns))
    return _term(low, high, (target,), names, operation, distribution, sigmas, shared, per_component)


def friction(
    low: Range, high: Range, geoms: Names = None, *, operation: Operation = "set", shared: bool = True
) -> RandomizationTerm:
    """Sliding friction coefficient, one draw for all geoms unless `shared` is false.

    A contact takes the larger coefficient of its two geoms unless one has the higher `priority`: name the geoms that
    decide (feet with priority, or the floor and the feet).
    """
    return _term(low, high, (Target("geom_friction", (0,)),), geoms, operation, shared=shared)


def mass(low: Range, high: Range, bodies: Names = None) -> RandomizationTerm:
    """Scale of each body's mass; its inertia scales along, as if its density changed."""
    return _term(low, high, (Target("body_mass"), Target("body_inertia")), bodies, "scale")


def payload(low: Range, high: Range, body: str) -> RandomizationTerm:
    """Mass in kg added to a body at its centre of mass, as a point."""
    return _term(low, high, (Target("body_mass"),), body, "add")


def inertia(low: Range, high: Range, bodies: Names = None) -> RandomizationTerm:
    """Scale of each body's rotational inertia, one factor for the three axes, so that it stays a physical one."""
    return _term(low, high, (Target("body_inertia"),), bodies, "scale")


def center_of_mass(low: Range, high: Range, bodies: Names) -> RandomizationTerm:
    """Shift of the centre of mass in m, in the body frame, drawn for each axis; ends may be (x, y, z)."""
    return _term(low, high, (Target("body_ipos"),), bodies, "add", per_component=True)


def armature(low: Range, high: Range, joints: Names = None, *, operation: Operation = "scale") -> RandomizationTerm:
    """Reflected rotor inertia of each joint; kg m^2 for `set` and `add`."""
    return _term(low, high, (Target("dof_armature"),), joints, operation)


def damping(low: Range, high: Range, joints: Names = None, *, operation: Operation = "scale") -> RandomizationTerm:
    """Viscous friction of each joint; N m s / rad for `set` and `add`. A servo's own damping is `actuator_kd`."""
    return _term(low, high, (Target("dof_damping"),), joints, operation)


def friction_loss(
    low: Range, high: Range, joints: Names = None, *, operation: Operation = "scale"
) -> RandomizationTerm:
    """Dry friction of each joint; N m for `set` and `add`. The model's own value must not be zero."""
    return _term(low, high, (Target("dof_frictionloss"),), joints, operation)


def actuator_kp(
    low: Range, high: Range, actuators: Names = None, *, operation: Operation = "scale"
) -> RandomizationTerm:
    """Stiffness of position servos; N m / rad for `set` and `add`."""
    targets = (Target("actuator_gainprm", (0,)), Target("actuator_biasprm", (1,), sign=-1.0))
    return _term(low, high, targets, actuators, operation)


def actuator_kd(
    low: Range, high: Range, actuators: Names = None, *, operation: Operation = "scale"
) -> RandomizationTerm:
    """Damping of position servos; N m s / rad for `set` and `add`."""
    return _term(low, high, (Target("actuator_biasprm", (2,), sign=-1.0),), actuators, operation)


def actuator_strength(low: Range, high: Range, actuators: Names = None, *, shared: bool = False) -> RandomizationTerm:
    """Scale of the force limits: a weak motor, or a low battery if `shared`."""
    return _term(low, high, (Target("actuator_forcerange"),), actuators, "scale", shared=shared)


def gravity(low: Range, high: Range) -> RandomizationTerm:
    """Gravity error in m/s^2, drawn for each axis; ends may be (x, y, z). Across x and y it is a tilted floor."""
    return _term(low, high, (Target("opt.gravity"),), None, "add", per_component=True)


def _term(
    low, high, targets, names, operation, distribution="uniform", sigmas=2.0, shared=False, per_component=False
) -> RandomizationTerm:
    return RandomizationTerm(
        low=np.asarray(low, np.float32) if isinstance(low, Sequence) else low,
        high=np.asarray(high, np.float32) if isinstance(high, Sequence) else high,
        targets=targets,
        names=None if names is None else (names,) if isinstance(names, str) else tuple(names),
        operation=operation,
        distribution=distribution,
        sigmas=sigmas,
        shared=shared,
        per_component=per_component,
    )
