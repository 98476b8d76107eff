"""Rollouts, statistics, reports and video."""
