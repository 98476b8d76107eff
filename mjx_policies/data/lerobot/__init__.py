"""Datasets of LeRobot, version 3.0: what there is to read and write them."""

from mjx_policies.data.lerobot.reader import FORMAT, LeRobotDataset, read, recognise, write
from mjx_policies.data.lerobot.writer import LeRobotWriter as Writer

__all__ = ["FORMAT", "LeRobotDataset", "Writer", "read", "recognise", "write"]
