"""The kinds of runs that evaluate.py, compare.py, play.py and export_onnx.py open."""

from __future__ import annotations

import bc_training
import ppo_training

AnyRun = ppo_training.Run | bc_training.CloningRun
