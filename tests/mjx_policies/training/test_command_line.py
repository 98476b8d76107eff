import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from mjx_policies.errors import UserError
from mjx_policies.training.command_line import naming_flags, parse, parse_arguments
from mjx_policies.training.config import may_change
from mjx_policies.training.run_folder import RunFolder

EXPERIMENTS = Path(__file__).parents[3] / "experiments"


@dataclasses.dataclass(frozen=True)
class Hyper:
    rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError(f"rate is {self.rate}, it must not be negative")


@dataclasses.dataclass(frozen=True)
class Config:
    task: str = "Pendulum"
    layers: tuple[int, ...] = (128, 128)  # widths of the network
    hyper: Hyper = dataclasses.field(default_factory=Hyper)
    steps: int = may_change(0)
    run_dir: str = may_change("")
    resume: bool = may_change(False)

    def __post_init__(self):
        if self.steps < 0:
            raise ValueError("steps is negative")


def test_a_resumed_run_is_as_it_was_but_for_what_is_given(tmp_path):
    run = str(tmp_path / "run")
    given = ("--task", "Go2", "--layers", "8", "--hyper.betas", "0.5", "0.9", "--steps", "30", "--run_dir", run)
    started = parse(Config, arguments=given)
    assert started == Config("Go2", (8,), Hyper(betas=(0.5, 0.9)), 30, run)
    RunFolder.create(run, started).close()
    resumed = parse(Config, arguments=("--run-dir", run, "--resume"))
    assert resumed == dataclasses.replace(started, resume=True)
    longer = parse(Config, arguments=("--resume", "--hyper.rate", "0.2", "--steps", "90", f"--run-dir={run}"))
    assert longer == dataclasses.replace(resumed, steps=90, hyper=Hyper(0.2, (0.5, 0.9)))


def test_a_run_that_is_not_there_cannot_be_resumed(tmp_path):
    with pytest.raises(UserError, match="--run-dir, which is missing: pass its path"):
        parse(Config, arguments=("--resume",))
    with pytest.raises(UserError, match="holds no run"):
        parse(Config, arguments=("--resume", "--run-dir", str(tmp_path)))


def test_a_sentence_that_begins_with_a_field_names_its_flag():
    assert naming_flags("hyper.rate is 0, it must be more", Config) == "--hyper.rate is 0, it must be more"
    assert naming_flags("run_dir must be given", Config) == "--run-dir must be given"
    for message in ("rate is 0", "hyper.rate is 0"):
        assert naming_flags(message, Hyper, "hyper.") == "--hyper.rate is 0"
    for other in ("the task is unknown", "rate is 0", "steps"):
        assert naming_flags(other, Config) == other


def test_help_is_a_docstring_within_the_terminal_and_the_flags(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = (
        f"Trains a policy: python experiments/train.py --task Go2\n\n{20 * 'one and 1000 more '}\n\n    W A   ahead\n"
    )
    with pytest.raises(SystemExit) as caught:
        parse(Config, text, arguments=("--help",))
    lines = capsys.readouterr().out.splitlines()
    assert caught.value.code == 0 and any("widths of the network" in line for line in lines)
    assert lines[:3] == ["Trains a policy.", "", "    python experiments/train.py --task Go2"]
    assert "    W A   ahead" in lines and max(len(line) for line in lines if "usage" not in line) <= 60


@pytest.mark.parametrize("default", [None, Config(steps=7)])
def test_what_makes_no_configuration_is_told_without_its_class(capsys, default):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(Config, arguments=("--steps", "-1"), default=default)
    assert caught.value.code == 2 and capsys.readouterr().err == "error: --steps is negative\n"
    with pytest.raises(SystemExit):
        parse_arguments(Config, arguments=("--hyper.rate", "-1"), default=default)
    assert capsys.readouterr().err == "error: --hyper.rate is -1.0, it must not be negative\n"
    assert parse_arguments(Config, arguments=("--task", "Go2"), default=default) == dataclasses.replace(
        default or Config(), task="Go2"
    )
    for kind, wrong in ((Hyper, {"rate": -1.0}), (Config, {"steps": -1})):
        with pytest.raises(ValueError, match="negative"):
            kind(**wrong)  # they are as they were


def test_scripts_that_drive_robots_start_without_jax():
    """Each of their processes would load it."""
    code = "import sys; sys.path.append(sys.argv[1]); import sim2sim, run_arm, teleop; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(EXPERIMENTS)], check=False).returncode == 0
