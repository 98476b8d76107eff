"""Environments: physics backends, tasks, wrappers and everything about episode boundaries."""

from mjx_policies.envs.base import Env, EnvSpec
from mjx_policies.envs.registry import TASKS, load
from mjx_policies.envs.vectorize import VectorEnv, vectorize

__all__ = ["TASKS", "Env", "EnvSpec", "VectorEnv", "load", "vectorize"]
