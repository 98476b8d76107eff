"""Configurations and whole runs, and the scripts that start them."""
