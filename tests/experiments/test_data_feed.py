import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "data_feed.py"


def test_measures_a_feed_from_the_disk(tmp_path):
    command = [sys.executable, str(SCRIPT), "--gigabytes", "0.002", "--seconds", "0.2", "--folder", str(tmp_path)]
    done = subprocess.run([*command, "--json", str(tmp_path / "found.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rates = json.loads((tmp_path / "found.json").read_text())["windows_per_second"]
    assert rates.keys() == {"1", "2"} and min(rates.values()) > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]  # the store is gone again
