"""The script that compares heads: its figures against slow loops, and a small comparison from end to end."""

import io
import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.box import SIMPLE_HEAD

from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.envs.registry import load
from mjx_policies.evaluation.mode_coverage import coverage, success_and_coverage
from mjx_policies.evaluation.statistics import mean, proportion
from mjx_policies.experiments.collection.demonstrators import expert_demonstrator
from mjx_policies.experiments.compare_heads import HeadBenchmark, HeadComparison
from mjx_policies.experiments.runs.loading import load_policy
from mjx_policies.training.preemption import Preemption
from mjx_policies.training.progress import LiteralConsole

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
TINY = ("--seeds", 2, "--episodes", 24, "--steps", 20, "--hidden-size", 16, "--batch-size", 16)
TINY = (*TINY, "--initial-states", 2, "--repeats", 3, "--horizon", 4, "--n-action-steps", 2, "--heads", "mse")
COSTS = {"training_seconds": mean([123.4]), "sampling_ms": mean([0.0123])}


def evaluations(success, side=None):  # [S, N, P] -> S
    """Of S policies, as far as coverage looks at them."""

    def results(s):
        rates = {"success": success[s], "failures": ~success[s]}
        figures = {name: proportion(int(each.sum()), each.size) for name, each in rates.items()}
        final = {} if side is None else {"side": side[s].ravel()}
        outcomes = SimpleNamespace(achieved=success[s].ravel(), failed=~success[s].ravel())
        return SimpleNamespace(figures=figures, final=final, outcomes=outcomes)

    return [results(s) for s in range(len(success))]


@given(st.lists(st.sampled_from(["left", "right", "failed"]), min_size=12, max_size=12))
@settings(deadline=None, max_examples=50)
def test_coverage_counts_pairs_from_one_initial_state(outcomes):
    """Three episodes from each of four initial states, and every pair counted."""
    table = np.asarray(outcomes).reshape(4, 3)
    expected = []
    for row in table:
        ends = [end for end in row if end != "failed"]
        pairs = [(a, b) for i, a in enumerate(ends) for b in ends[:i]]
        if pairs:
            expected.append(2 * sum(a != b for a, b in pairs) / len(pairs))
    side = np.where(table == "left", 1.0, np.where(table == "right", -1.0, np.nan))
    unknown_or_mean = sum(expected) / len(expected) if expected else math.nan
    np.testing.assert_allclose(coverage(table != "failed", side), unknown_or_mean)


def test_coverage_of_a_fair_coin_is_one_and_of_a_choice_by_initial_state_zero():
    everything = np.ones((4000, 8), bool)
    coin = np.random.default_rng(0).choice([-1.0, 1.0], everything.shape)
    assert coverage(everything, coin) == pytest.approx(1.0, abs=0.02)
    by_state = np.broadcast_to(coin[:, :1], coin.shape)  # on the whole it is as multimodal
    assert coverage(everything, by_state) == 0.0


def test_figures_leave_out_what_nobody_measured():
    """One seed goes left and right, one only left, one nowhere."""
    success, side = np.zeros((3, 1, 2), bool), np.full((3, 1, 2), np.nan)
    success[:2] = True
    side[0, 0], side[1, 0] = (1.0, -1.0), (1.0, 1.0)
    found = success_and_coverage(evaluations(success, side), 2)
    assert found["success"].value == pytest.approx(2 / 3) and found["lost"].value == pytest.approx(1 / 3)
    assert found["left"].value == 0.75 and found["left"].count == 2
    assert found["both"].value == 0.5 and found["both"].count == 2
    assert found["coverage"].value == 1.0 and found["coverage"].count == 2  # no pair of the first agrees: 2 and 0


def test_coverage_without_a_success_is_unknown_and_the_table_fits_80_columns():
    nowhere, side = np.zeros((2, 4, 3), bool), np.full((2, 4, 3), np.nan)
    failed = success_and_coverage(evaluations(nowhere, side), 3)
    assert math.isnan(failed["coverage"].value) and failed["both"].count == 0 and failed["success"].value == 0.0
    good = success_and_coverage(evaluations(~nowhere, np.ones_like(side)), 3)
    assert good["coverage"].value == 0.0 and good["both"].value == 0.0
    console = LiteralConsole(file=io.StringIO(), width=80)
    comparison = HeadComparison(HeadBenchmark(heads=("mse",), backend="cpu"), console, Preemption())
    comparison.rows = {"consistency": failed | COSTS, "mse[1]": good | COSTS}
    comparison.show(console, SIMPLE_HEAD)
    *_, titles, _, bad, fine, _, settings = console.file.getvalue().rstrip().splitlines()
    assert max(map(len, (titles, bad, fine))) <= 80 and "both modes" in titles and "…" not in titles
    assert " ".join(bad.split()) == "consistency 0 [0,66] 100 [34,100] unknown unknown 123 0.0123"
    assert " ".join(fine.split()) == "mse[1] 100 [34,100] 0 [0,66] 0 [0,66] 0 of 2 123 0.0123"
    assert settings == "mse: chunks of 16, 8 executed, 2,000 gradient steps, weight decay 1e-06."


def test_figures_of_one_seed_have_the_interval_of_their_initial_states():
    """Eight episodes from each of four, all of which end alike: four outcomes, not 32."""
    ends = np.repeat([True, True, False, True], 8).reshape(1, 4, 8)
    found = success_and_coverage(evaluations(ends), 8)
    assert found["success"].value == 0.75 and found["success"].count == 4
    assert found["success"].high - found["success"].low > 0.5 and found["lost"].value == 0.25


def test_figures_of_one_seed_have_the_interval_of_their_episodes():
    found = success_and_coverage(evaluations(np.arange(50).reshape(1, 50, 1) < 35), 1)
    assert found["success"].value == 0.7 and found["success"].count == 50
    np.testing.assert_allclose([found["success"].low, found["success"].high], [0.562, 0.809], atol=5e-4)


@pytest.mark.parametrize("tremor", [0.0, 1.0, 2.0])
def test_tremor_scales_how_far_an_action_is_from_what_was_meant(tremor):
    task = load("Obstacle2D", "cpu", num_envs=1)
    expert = load_expert("Obstacle2D", task)
    state, timestep = task.reset(jax.random.key(0), {})
    actor = expert_demonstrator(expert, tremor)
    carry = actor.init(jax.random.key(1), state, timestep.obs)
    action, label, _ = actor.act(carry, state, timestep.obs, jax.random.key(2), jnp.zeros((), jnp.int32))
    managed, after = expert.act(expert.init(jax.random.key(1), state), state, jax.random.key(2))
    assert np.abs(managed - after.intended).max() > 1e-4
    np.testing.assert_allclose(label, after.intended, atol=1e-6)
    np.testing.assert_allclose(action - label, tremor * (managed - after.intended), atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("heads") / "found"


def test_heads_are_compared_in_a_table_a_file_and_a_picture(folder, run_script):
    done = run_script("compare_heads.py", *TINY, "mixture", "--run-dir", folder)
    assert done.returncode == 0 and "run folder: " in done.stdout, done
    found = json.loads((folder / "heads.json").read_text())
    assert set(found["heads"]) == {"mse", "mixture"} and found["asked"]["seeds"] == 2
    for row in found["heads"].values():
        assert row["success"]["count"] == 2 and row["coverage"]["count"] <= 2
        assert 0 <= row["success"]["low"] <= row["success"]["value"] <= row["success"]["high"] <= 1
        assert row["training_seconds"]["value"] > 0 and row["sampling_ms"]["value"] > 0
    # A policy that has no choice takes the same way from the same initial state, or none.
    assert found["heads"]["mse"]["coverage"]["value"] in (0, None)  # unknown where none arrived twice from one
    text = (folder / "heads.md").read_text()
    assert "| mse " in text and "mixture: chunks of 4, 2 executed, 20 gradient steps" in text
    with Image.open(folder / "heads.png") as picture:
        assert picture.width > 600


def test_policies_of_a_head_are_those_of_a_run(folder):
    policy = load_policy(folder / "mixture", "cpu", number=1)
    assert policy.config.seed == 1 and policy.steps == 20
    assert policy.config.hyper.weight_decay == pytest.approx(1e-6 / 3)


def test_heads_that_are_not_evaluated_anew_keep_their_rows_wherever_the_folder_lies(folder, run_script, monkeypatch):
    before = json.loads((folder / "heads.json").read_text())["heads"]
    monkeypatch.chdir(folder.parent)  # the folder has another spelling now
    done = run_script("compare_heads.py", "--run-dir", "found", "--resume", "--heads", "mixture")
    assert done.returncode == 0 and "mse " in done.stdout, done
    after = json.loads((folder / "heads.json").read_text())["heads"]
    assert after["mse"] == before["mse"] and after["mixture"]["success"] == before["mixture"]["success"]


def test_a_head_that_fails_leaves_the_others_which_are_not_trained_again(folder, run_script):
    (folder / "mse" / "config.json").write_text("{}")
    before = (folder / "mixture" / "metrics.csv").read_bytes()
    (folder / "heads.json").unlink()
    done = run_script("compare_heads.py", "--run-dir", folder, "--resume", "--heads", "mse", "mixture")
    assert done.returncode == 2 and "mse failed: " in done.stderr and "Traceback" not in done.stderr
    assert set(json.loads((folder / "heads.json").read_text())["heads"]) == {"mixture"}
    assert (folder / "mixture" / "metrics.csv").read_bytes() == before


def test_a_signal_in_training_is_told_once_and_all_seconds_of_training_count(folder, tmp_path, run_script, stopping):
    with stopping():
        asked = (*TINY, "--steps", 300, "--demos", folder / "demonstrations", "--run-dir", tmp_path / "found")
        done = run_script("compare_heads.py", *asked)
    assert done.returncode == 143 and "saved at step 200 of 300" in done.stdout, done
    assert (done.stdout + done.stderr).count("--resume") == 1
    assert done.stdout.endswith(f"go on with --resume --run-dir {tmp_path / 'found'}\n")
    done = run_script("compare_heads.py", "--run-dir", tmp_path / "found", "--resume")
    assert done.returncode == 0 and "resumed at step 200 of 300" in done.stdout, done
    (newest,) = (tmp_path / "found" / "mse" / "checkpoints").glob("*300")
    timed = json.loads((newest / "manifest.json").read_text())["meta"]["user"]["seconds"]["train"]
    (row,) = json.loads((tmp_path / "found" / "heads.json").read_text())["heads"].values()
    # Of three iterations two were the first of a process, which compiles.
    assert row["training_seconds"]["value"] == pytest.approx(3 * timed)


def test_chunks_of_every_length_are_compared(tmp_path, run_script):
    arguments = ("--sweep", "chunk", "--tremor", 0, "--run-dir", tmp_path / "found")
    done = run_script("compare_heads.py", *TINY, *arguments)
    assert done.returncode == 0, done
    rows = json.loads((tmp_path / "found" / "heads.json").read_text())["heads"]
    assert set(rows) == {f"mse, tremor 0, {what}" for what in ("executed 1", "executed 4", "ensemble")}
    assert max(len(line) for line in done.stdout.splitlines() if "tremor 0, " in line) <= 80
    assert "mse: chunks of 4, 20 gradient steps" in done.stdout
    with Image.open(tmp_path / "found" / "heads.png") as picture:
        assert picture.width > 400


def test_earlier_results_stay(tmp_path, run_script):
    (tmp_path / "heads.json").write_text("{}")
    done = run_script("compare_heads.py", *TINY, "--run-dir", tmp_path)
    assert done.returncode == 2
    assert "is not empty (it holds heads.json). Choose another --run-dir." in " ".join(done.stderr.split())
    assert (tmp_path / "heads.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--heads", "mlp"), "invalid choice 'mlp'"),
        (("--heads", "mse", "mse"), "--heads is mse mse, which names one twice"),
        (("--tremor", 0.0, 0.0), "--tremor is 0.0 0.0, which names one twice"),
        (("--repeats", 1), "--repeats is 1: "),
        (("--seeds", 0), "seeds is 0, it must be at least 1"),
        (("--n-action-steps", 17), "n-action-steps is 17, more than the 16 actions of a chunk"),
        (("--hyper.weight-decay", -1.0), "weight-decay is -1, it must lie between 0 and"),
        (("--tremor", -1.0), "tremor must hold at least one number, each from 0 to 10"),
        (("--task", "Pendulum"), "Pendulum has no stages to solve"),
        (("--task", "Cartwheel"), "unknown task 'Cartwheel'"),
        (("--sweep", "steps", "--heads", "mse"), "mse does not sample in steps"),
        (("--sweep", "chunk", "--heads", "bins"), "bins has shorter chunks than the other heads"),
        (("--sweep", "chunk", "--inference-delay", 1), "leave out inference_delay, real_time, ensemble"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(arguments, sentence, tmp_path, run_script):
    done = run_script("compare_heads.py", *arguments, "--run-dir", tmp_path / "found")
    said = " ".join((done.stdout + done.stderr).replace("│", " ").split())
    assert done.returncode == 2 and sentence in said and "Traceback" not in said, said
    assert not (tmp_path / "found").exists()
