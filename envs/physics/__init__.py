"""Physics backends behind one protocol: `cpu` (the C engine), `mjx` (XLA) and `warp` (NVIDIA)."""

from mjx_policies.envs.physics.base import Data, Dynamics, Physics
from mjx_policies.envs.physics.make import Backend, make_physics, resolve_backend

__all__ = ["Backend", "Data", "Dynamics", "Physics", "make_physics", "resolve_backend"]
