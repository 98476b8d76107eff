"""Scripted experts, one per task, who solve it the way people would."""
