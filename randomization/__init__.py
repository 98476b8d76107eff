"""Randomized robots: dynamics, latency, sensors, pushes."""
