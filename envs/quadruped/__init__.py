"""Quadruped tasks."""
