"""Robots in MJCF."""
