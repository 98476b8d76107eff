"""Learners and the runners that feed them."""
