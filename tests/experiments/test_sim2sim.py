"""The gate's script: what it makes of episodes, what it writes and says, and how it ends."""

import importlib.util
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mjx_policies.deploy.contract import Range
from mjx_policies.deploy.simulation.sim_to_sim import CONDITIONS, GateEpisode
from mjx_policies.training.progress import LiteralConsole

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "sim2sim.py"


def imported(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


script = imported("sim2sim", SCRIPT)
files = imported("policy_files", ROOT / "tests" / "mjx_policies" / "deploy" / "conftest.py")
ZEROS = {name: np.zeros((3, 1)) for name in ("qpos", "targets", "angles", "contacts", "commands", "velocities")}


def episode(fallen=False, fault_name="", track=0.9):
    fault = fault_name and f"{fault_name} was wrong [of 3 m/s]: check it."
    return GateEpisode(fallen, fault, fault_name, track, 0.95, 0.01, **ZEROS)


def verdict(episodes, condition="nominal", contract=None, **changes):
    gate = script.Gate(policy=Path("p.onnx"), episodes=len(episodes), **changes)
    return script.evaluate(gate, condition, contract or files.example_contract(), episodes)


def test_falls_and_stops_are_both_failures_and_told_apart():
    stops = [episode(fault_name="tilt"), episode(fault_name="tilt"), episode(fault_name="saturation")]
    found = verdict([episode() for _ in range(95)] + stops + [episode(fallen=True), episode(True, "tilt")])
    assert found.failures.value == 0.05 and found.passed and found.falls == 2
    assert found.stops == {"tilt": 2, "saturation": 1}
    assert found.faults["tilt"] == "tilt was wrong [of 3 m/s]: check it."
    assert verdict([episode() for _ in range(93)] + [episode(fallen=True)] * 7).passed is False
    assert verdict([episode(track=0.69) for _ in range(10)]).passed is False


def test_a_condition_that_was_not_finished_has_no_verdict():
    gate = script.Gate(policy=Path("p.onnx"), episodes=3)
    assert script.evaluate(gate, "nominal", files.example_contract(), [episode()]).passed is None


@pytest.fixture
def ran(tmp_path, monkeypatch, capsys):
    """Runs `main` on episodes that are given, by condition; returns exit code, output and the folder."""
    policy = tmp_path / "a[b]" / "policy.onnx"
    policy.parent.mkdir()
    kept = (Range("payload", "add", (-1.0,), (2.0,)),)
    files.write_policy(policy, files.example_contract(randomization=kept))
    monkeypatch.setattr(script, "draw_episode", lambda *parts: parts[-1].write_text(parts[1]))
    monkeypatch.setattr(script, "record_episode", lambda *parts: parts[-1].write_text("video"))

    def run(episodes, stopped="", **changes):
        found = {(name, number): each for name, all_of in episodes.items() for number, each in enumerate(all_of)}
        monkeypatch.setattr(script, "run_in_workers", lambda *parts: (found, stopped))
        gate = script.Gate(policy=policy, episodes=4, **changes)
        try:
            code = script.main(gate)
        except SystemExit as stop:
            code = stop.code
        output = capsys.readouterr()
        return code, output.out + output.err, policy.parent / "sim2sim"

    return run


GOOD, BAD = [episode()] * 4, [episode(fallen=True)] * 4


def test_only_conditions_that_training_covers_decide(ran):
    code, output, folder = ran({"nominal": GOOD, "mass": GOOD, "payload": BAD})
    assert code == 0
    rows = {line.split()[0]: line.split() for line in output.splitlines() if line.strip()}
    assert rows["payload"][1:3] == ["*", "1.000"] and rows["payload"][-1] == "-" and rows["mass"][-1] == "pass"
    assert "*: more than twice as far from the model as the training of this policy went" in output
    found = json.loads((folder / "sim2sim.json").read_text())
    assert {name: each["covered"] for name, each in found["verdicts"].items()} == {
        "nominal": True, "mass": True, "payload": False,
    }  # fmt: skip
    assert found["verdicts"]["payload"]["falls"] == 4 and found["verdicts"]["payload"]["passed"] is None
    assert found["stopped_by"] == "" and "no verdict" not in output
    assert (folder / "worst.png").read_text() == "worst episode: payload, a condition that does not count"
    assert ran({"nominal": GOOD, "mass": BAD})[0] == 1


def test_where_no_condition_counts_nothing_has_passed(ran):
    code, output, folder = ran({"payload": GOOD, "slope": GOOD})
    assert code == 1 and "no verdict: none of these conditions counts for this policy" in output
    assert (folder / "sim2sim.json").exists() and "pass " not in output.split("pass: ")[0]


def test_a_stopped_gate_keeps_and_prints_what_it_had(ran):
    for name, code in (("SIGINT", 130), ("SIGTERM", 143)):
        found = ran({"nominal": GOOD, "mass": GOOD[:2]}, stopped=name)
        assert found[0] == code and f"stopped by {name}" in found[1]
        written = json.loads((found[2] / "sim2sim.json").read_text())
        assert written["stopped_by"] == name
        assert {key: each["passed"] for key, each in written["verdicts"].items()} == {"nominal": True, "mass": None}
        assert written["verdicts"]["mass"]["failures"]["count"] == 2


def test_results_are_on_the_disk_before_anything_is_printed(ran, monkeypatch, tmp_path):
    class Broken:
        def __rich_console__(self, *arguments):
            raise BrokenPipeError

    monkeypatch.setattr(script, "table", lambda *arguments: Broken())
    with pytest.raises(BrokenPipeError):
        ran({"nominal": GOOD, "mass": GOOD})
    assert {file.name for file in tmp_path.glob("*/sim2sim/*")} == set(script.FILES)


def test_nothing_of_others_is_overwritten(ran, tmp_path):
    assert ran({"nominal": GOOD})[0] == ran({"nominal": GOOD})[0] == 0, "its own folder"
    (tmp_path / "worst.png").write_text("somebody's")
    code, output, _ = ran({"nominal": GOOD}, out=tmp_path)
    assert code == 2 and "worst.png exists already" in output and "--overwrite" in output
    assert (tmp_path / "worst.png").read_text() == "somebody's" and not (tmp_path / "sim2sim.json").exists()
    assert ran({"nominal": GOOD}, out=tmp_path, overwrite=True)[0] == 0
    assert (tmp_path / "worst.png").read_text() == "worst episode: nominal"


def test_at_80_columns_each_condition_is_one_row():
    stops = [episode(fault_name="joint_velocity")] * 40
    verdicts = {name: verdict([episode(True)] * 60 + stops, name) for name in CONDITIONS}
    gate = script.Gate(policy=Path("runs/a[b]/policy.onnx"))
    console = LiteralConsole(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    console.print(script.table(gate, verdicts, ""))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "runs/a[b]/policy.onnx" in lines[0]
    for name in CONDITIONS:
        (row,) = (line for line in lines if line.split()[:1] == [name])
        assert "1.000 [0.963, 1.000]" in row and row.split()[-1] == ("fail" if verdicts[name].covered else "-")
    legend = script.legend(gate, verdicts)
    assert all(any(line.startswith(f"{name}: ") for line in legend) for name in CONDITIONS)
    assert any(
        "stopped by joint_velocity: 480 of the episodes, such as: joint_velocity was wrong [of 3 m/s]" in x
        for x in legend
    )


WRAPPER = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import sim2sim
from mjx_policies.training import waiting

if __name__ == "__main__":
    waiting.LINE_SECONDS = 0.1
    sys.exit(sim2sim.main(sim2sim.Gate(Path(sys.argv[2]), 1000, 1, conditions=("nominal",), seconds=0.1)))
"""


def test_sigterm_ends_it_with_what_was_done(tmp_path):
    """Whole, with its processes, and without a terminal."""
    policy, wrapper = tmp_path / "policy.onnx", tmp_path / "wrapper.py"
    files.write_policy(policy)
    wrapper.write_text(WRAPPER)
    command = [sys.executable, "-W", "error", wrapper, SCRIPT.parent, policy]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("episodes: 0 of 1,000")
        while process.stdout.readline().startswith("episodes: 0"):
            pass
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and "SIGTERM: stopping" in errors and "Traceback" not in errors
    found = json.loads((tmp_path / "sim2sim" / "sim2sim.json").read_text())["verdicts"]["nominal"]
    assert 0 < found["failures"]["count"] < 1000 and found["passed"] is None
    words = f"{found['failures']['count']:,} of 1,000 episodes, stopped by SIGTERM"
    assert words in " ".join(output.split())
