"""Wrappers that change what a step is, around any task; those that make a robot differ are in `randomization`."""

from mjx_policies.envs.wrappers.action_chunk import ActionChunk
from mjx_policies.envs.wrappers.history import History

__all__ = ["ActionChunk", "History"]
