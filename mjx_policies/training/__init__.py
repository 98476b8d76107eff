"""The host loop: run folder, logging, progress, checkpoints, resume, preemption."""
