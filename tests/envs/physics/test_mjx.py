import subprocess
import sys


def test_its_import_prints_nothing():
    command = [sys.executable, "-c", "import mjx_policies.envs.physics.mjx"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
