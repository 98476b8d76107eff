"""Runs: one skeleton from a configuration to a finished folder, a recipe for each algorithm, and how to open one."""
