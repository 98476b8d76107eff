"""The script that needs nothing of this library: it reads files as we write them now."""

import ast
import runpy
from pathlib import Path

SCRIPT = Path(__file__).with_name("walk_alone.py")
MODEL = Path(__file__).parents[4] / "envs" / "models" / "go2.xml"


def test_it_runs_what_we_write(policies, tmp_path):
    policies.write_policy(tmp_path / "go2.onnx")
    walk = runpy.run_path(str(SCRIPT))["walk"]
    found = walk(str(tmp_path / "go2.onnx"), str(MODEL), robots=3, seconds=0.4)
    assert 0 <= found["falls"] <= 1 and 0 < found["track_linear"] <= 1


def test_it_needs_nothing_of_ours():
    tree = ast.parse(SCRIPT.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"json", "sys", "mujoco", "numpy", "onnxruntime"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
