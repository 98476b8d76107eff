"""The script that compares heads: its figures against slow loops, and a small comparison from end to end."""

import importlib
import io
import json
import math
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.envs.registry import load
from mjx_policies.evaluation.statistics import mean
from mjx_policies.training.progress import LiteralConsole

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
SCRIPTS = Path(__file__).parents[2] / "experiments"
TINY = ("--seeds", 2, "--demos", 24, "--steps", 20, "--size", 16, "--starts", 2, "--repetitions", 3, "--batch-size", 16)


@pytest.fixture(scope="module", autouse=True)
def path_of_a_script():
    """A script finds its neighbours, as where Python runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield


@pytest.fixture(scope="module")
def contest():
    return importlib.import_module("head_contest")


def script(*arguments):
    """Runs the script in this process, which spares its imports; returns the exit code."""
    argv, sys.argv = sys.argv, ["compare_heads.py", *map(str, arguments)]
    try:
        runpy.run_path(str(SCRIPTS / "compare_heads.py"), run_name="__main__")
        return 0
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = argv


@given(st.lists(st.sampled_from(["left", "right", "failed"]), min_size=12, max_size=12))
@settings(deadline=None, max_examples=50)
def test_coverage_counts_pairs_from_one_start(contest, outcomes):
    """Two seeds, three repetitions of two starts, and every pair looked at."""
    table = np.asarray(outcomes).reshape(2, 3, 2)
    expected = []
    for seed in range(2):
        starts = []
        for start in range(2):
            ends = [end for end in table[seed, :, start] if end != "failed"]
            pairs = [(a, b) for i, a in enumerate(ends) for b in ends[:i]]
            if pairs:
                starts.append(2 * sum(a != b for a, b in pairs) / len(pairs))
        expected.append(sum(starts) / len(starts) if starts else math.nan)  # unknown
    side = np.where(table == "left", 1.0, np.where(table == "right", -1.0, np.nan))
    np.testing.assert_allclose(contest.coverage(table != "failed", side), expected)


def test_coverage_of_a_fair_coin_is_one_and_of_a_choice_by_start_zero(contest):
    everything = np.ones((1, 8, 4000), bool)
    coin = np.random.default_rng(0).choice([-1.0, 1.0], everything.shape)
    assert contest.coverage(everything, coin)[0] == pytest.approx(1.0, abs=0.02)
    by_start = np.broadcast_to(coin[:, :1], coin.shape)  # on the whole it takes both ways just as often
    assert contest.coverage(everything, by_start)[0] == 0.0


def test_figures_leave_out_what_nobody_measured(contest):
    """One seed goes left and right, one only left, one nowhere."""
    success, side = np.zeros((3, 2, 1), bool), np.full((3, 2, 1), np.nan)
    success[:2] = True
    side[0, :, 0], side[1, :, 0] = (1.0, -1.0), (1.0, 1.0)
    found = contest.figures(contest.Tried(success, ~success, side, np.zeros((3, 2, 1, 5, 2)), 0.0))
    assert found["success"].value == pytest.approx(2 / 3) and found["lost"].value == pytest.approx(1 / 3)
    assert found["left"].value == 0.75 and found["left"].count == 2
    assert found["both"].value == 0.5 and found["both"].count == 2
    assert found["coverage"].value == 1.0 and found["coverage"].count == 2  # no pair of the first agrees: 2 and 0


def test_coverage_without_a_success_is_unknown_and_the_table_fits_80_columns(contest):
    heads = importlib.import_module("compare_heads")
    nowhere, side = np.zeros((2, 3, 4), bool), np.full((2, 3, 4), np.nan)
    failed = contest.figures(contest.Tried(nowhere, ~nowhere, side, np.zeros((2, 3, 4, 5, 2)), 0.0))
    assert math.isnan(failed["coverage"].value) and failed["both"].count == 0 and failed["success"].value == 0.0
    good = contest.figures(contest.Tried(~nowhere, nowhere, np.ones_like(side), np.zeros((2, 3, 4, 5, 2)), 0.0))
    assert good["coverage"].value == 0.0 and good["both"].value == 0.0
    costs = {"training_seconds": 123.4, "sampling_seconds": mean([0.0123, 0.0145], lowest=0.0)}
    rows = {"consistency": failed | costs, "mse[1]": good | costs}
    assert heads.cells(rows["consistency"])[2:4] == ["unknown", "unknown"]
    assert heads.verdicts(rows) == [
        "Around on both sides in no seed: mse[1].",
        "Too few successes to know the sides: consistency.",
    ]
    console = LiteralConsole(file=io.StringIO(), width=80)
    console.print(heads.terminal_table(heads.Contest(), rows))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and any("mse[1]" in line and "100 [34,100]" in line for line in lines), lines
    assert sum("consistency" in line for line in lines) == 1


def test_figures_of_one_seed_have_the_interval_of_their_episodes(contest):
    success = np.arange(50).reshape(1, 5, 10) < 35
    found = contest.figures(contest.Tried(success, ~success, np.full(success.shape, np.nan), None, 0.0))
    assert found["success"].value == 0.7 and found["success"].count == 50
    np.testing.assert_allclose([found["success"].low, found["success"].high], [0.562, 0.809], atol=5e-4)


@pytest.mark.parametrize("tremor", [0.0, 1.0, 2.0])
def test_tremor_scales_how_far_an_action_is_from_what_was_meant(contest, tremor):
    task = load("Obstacle2D", "cpu", num_envs=1)
    expert = load_expert("Obstacle2D", task)
    state, timestep = task.reset(jax.random.key(0), {})
    actor = contest.shaky_actor(expert, tremor)
    carry = actor.init(jax.random.key(1), state, timestep.obs)
    action, label, _ = actor.act(carry, state, timestep.obs, jax.random.key(2), jnp.zeros((), jnp.int32))
    managed, after = expert.act(expert.init(jax.random.key(1), state), state, jax.random.key(2))
    assert np.abs(managed - after.intended).max() > 1e-4
    np.testing.assert_allclose(label, after.intended, atol=1e-6)
    np.testing.assert_allclose(action - label, tremor * (managed - after.intended), atol=1e-6)


def test_heads_are_compared_in_a_table_a_file_and_a_picture(tmp_path, capsys):
    folder = tmp_path / "found"
    assert script(*TINY, "--heads", "mse", "mixture", "--horizon", 4, "--execute", 2, "--out", folder) == 0
    found = json.loads((folder / "heads.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["mse", "mixture"] and found["asked"]["seeds"] == 2
    for row in found["rows"]:
        assert row["success"]["count"] == 2 and row["coverage"]["count"] <= 2
        assert 0 <= row["success"]["low"] <= row["success"]["value"] <= row["success"]["high"] <= 1
        assert row["training_seconds"] > 0 and row["sampling_seconds"]["value"] > 0
    # A policy that has no choice takes the same way from the same start, or none.
    assert found["rows"][0]["coverage"]["value"] in (0, None)  # unknown where none arrived twice from a start
    text = (folder / "heads.md").read_text()
    assert "| mse | " in text and ("in no seed: mse" in text or "to know the sides: mse" in text)
    with Image.open(folder / "heads.png") as picture:
        assert picture.width > 600
    assert "results: " in capsys.readouterr().out


def test_chunks_of_every_length_are_compared(tmp_path):
    arguments = ("--sweep", "chunk", "--heads", "mse", "--horizon", 4, "--execute", 2, "--tremor", 0, "--out", tmp_path)
    assert script(*TINY, *arguments) == 0
    rows = [row["name"] for row in json.loads((tmp_path / "heads.json").read_text())["rows"]]
    assert rows == [f"mse, tremor 0, {what}" for what in ("1 executed", "4 executed", "ensemble")]
    with Image.open(tmp_path / "heads.png") as picture:
        assert picture.width > 400


def test_earlier_results_stay(tmp_path, capsys):
    (tmp_path / "heads.json").write_text("{}")
    assert script(*TINY, "--heads", "mse", "--out", tmp_path) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds a heads.json already: choose another --out, or replace it with --overwrite." in said
    assert (tmp_path / "heads.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--heads", "mlp"), "there is no head 'mlp'; choose of mse, "),
        (("--repetitions", 1), "repetitions is 1: "),
        (("--seeds", 0), "seeds is 0, it must be at least 1"),
        (("--execute", 17), "execute is 17, more than the 16 actions of a chunk"),
        (("--light-decay", -1.0), "weight_decay is -1, it must lie between 0 and"),
        (("--tremor", -1.0), "tremor must hold at least one number, each from 0 to 10"),
        (("--task", "Pendulum"), "there is no expert for 'Pendulum'"),
        (("--task", "Cartwheel"), "unknown task 'Cartwheel'"),
        (("--sweep", "steps", "--heads", "mse"), "mse does not sample in steps"),
        (("--sweep", "chunk", "--heads", "bins"), "bins has shorter chunks than the other heads"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(arguments, sentence, tmp_path, capsys):
    assert script(*arguments, "--out", tmp_path / "found") == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert sentence in said and "Traceback" not in said
    assert not (tmp_path / "found").exists()
