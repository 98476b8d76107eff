"""Reading a model's sensors by name."""

from __future__ import annotations

import functools

import mujoco

from mjx_policies.types import Array


@functools.lru_cache(maxsize=64)
def sensor_slices(model: mujoco.MjModel) -> dict[str, slice]:
    """The slice of `sensordata` for each named sensor."""
    return {
        model.sensor(i).name: slice(int(model.sensor_adr[i]), int(model.sensor_adr[i] + model.sensor_dim[i]))
        for i in range(model.nsensor)
    }


def read_sensor(model: mujoco.MjModel, sensordata: Array, name: str) -> Array:  # [nsensordata] -> [dim]
    """Reads the values of one sensor."""
    slices = sensor_slices(model)
    if name not in slices:
        raise ValueError(f"the model has no sensor {name!r}; it has: {', '.join(slices)}")
    return sensordata[slices[name]]


def add_contact_sensor(spec: mujoco.MjSpec, name: str, geom: str, other: str, force: bool = False) -> None:
    """Adds a sensor of the contact between two geometries, the only matching that MJX-JAX has.

    It reads the number of contacts; with `force` also the force (N: normal, two tangents) of the deepest.
    """
    data = 1 << int(mujoco.mjtConDataField.mjCONDATA_FOUND)
    if force:
        data |= 1 << int(mujoco.mjtConDataField.mjCONDATA_FORCE)
    spec.add_sensor(
        name=name,
        type=mujoco.mjtSensor.mjSENS_CONTACT,
        objtype=mujoco.mjtObj.mjOBJ_GEOM,
        objname=geom,
        reftype=mujoco.mjtObj.mjOBJ_GEOM,
        refname=other,
        intprm=[data, 1, 1],  # what to report, reduce by smallest distance, one contact
    )
