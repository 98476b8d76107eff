"""Wrappers around tasks."""
