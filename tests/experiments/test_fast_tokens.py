import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "fast_tokens.py"


def test_measures_tokens_of_what_an_expert_does(tmp_path):
    command = [sys.executable, str(SCRIPT), "--task", "Obstacle2D", "--episodes", "8", "--rates", "5", "10"]
    done = subprocess.run([*command, "--json", str(tmp_path / "found.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "found.json").read_text())["by_rate"]
    assert [rows[rate]["numbers"] for rate in ("5", "10")] == [10, 20]
    for row in rows.values():
        assert 1 <= row["tokens"] <= row["numbers"] and 0 <= row["error_mean"] <= row["error_p99"] < 0.5
