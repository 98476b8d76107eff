"""Environments: physics backends, tasks, wrappers and everything about episode boundaries."""
