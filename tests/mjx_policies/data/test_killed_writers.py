import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("name", "rounds"), [("lerobot", 20), ("robomimic", 6)])
def test_a_killed_writer_loses_no_finished_episode(name, rounds, tmp_path):
    script = Path(__file__).with_name("killed_writer.py")
    command = [sys.executable, str(script), name, str(tmp_path), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > rounds  # kills met writers that were at work
