"""Sweeps of whole configurations: of PPO on a pendulum, of behaviour cloning on demonstrations made up by hand."""

import dataclasses
import json
import re

import chex
import jax
import numpy as np
import pytest

from mjx_policies.agents.bc import BCHyper
from mjx_policies.agents.ppo import PPOConfig, PPOHyper
from mjx_policies.agents.sweep import member
from mjx_policies.data.episodes import Episode
from mjx_policies.data.store import in_memory
from mjx_policies.envs.base import EnvSpec
from mjx_policies.errors import UserError
from mjx_policies.experiments.runs import bc as bc_run
from mjx_policies.experiments.runs import ppo as ppo_run
from mjx_policies.experiments.runs import results
from mjx_policies.experiments.runs import run as skeleton
from mjx_policies.experiments.runs.bc import BCRun
from mjx_policies.experiments.runs.bc_steps import bc_job
from mjx_policies.experiments.runs.demonstrations import prepare
from mjx_policies.experiments.runs.evaluation import make_evaluator
from mjx_policies.experiments.runs.grid import beginning, members
from mjx_policies.experiments.runs.loading import load_policy, member_file
from mjx_policies.experiments.runs.ppo import RECIPE, PPORun, build
from mjx_policies.spec import ActionTable, Term
from mjx_policies.training import memory_usage
from mjx_policies.training.loop import train
from mjx_policies.training.metrics import WALL_CLOCK, read_metrics, read_table

on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
DIVERGES = 1e9  # a learning rate
SWEEP = PPORun(
    task="Pendulum",
    backend="cpu",
    num_envs=8,
    rollout_length=2,
    policy_layers=(4,),
    critic_layers=(4,),
    curriculum_threshold=0.0,
    steps=64,
    eval_episodes=2,
    evaluations=1,
    checkpoint_seconds=0.0,
    sizes=PPOConfig(num_epochs=1, num_minibatches=1),
    hyper=PPOHyper(desired_kl=0.0, final_desired_kl=0.0),
    seeds=2,
    grid=(f"hyper.learning_rate=1e-2,{DIVERGES}",),
)


class Crash(Exception):
    """Stands for a process that ends without warning."""


def crashing(step):
    """`train` that ends so once it has logged this step."""

    def report(row):
        if row["step"] == step:
            raise Crash

    return lambda *arguments, **options: train(*arguments, report=report, **options)


def complete(run, folder, **changes):
    skeleton.complete(dataclasses.replace(run, run_dir=str(folder), **changes), RECIPE)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A finished sweep, and one of the same configuration that was killed and resumed."""
    whole, parts = (tmp_path_factory.mktemp("runs") / name for name in ("whole", "parts"))
    quick, kept = {"xla_backend_optimization_level": 0}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "record_video", lambda *arguments, **options: b"mp4")
        patch.setattr(ppo_run, "compiler_options", lambda **options: quick)
        # One evaluator for both, which compiles once.
        patch.setattr(results, "make_evaluator", lambda *of: kept.setdefault("all", make_evaluator(*of)))
        complete(SWEEP, whole)
        patch.setattr(skeleton, "train", crashing(32))
        with pytest.raises(Crash):
            complete(SWEEP, parts)
        patch.setattr(skeleton, "train", train)
        complete(SWEEP, parts, resume=True)
    return whole, parts


@on_cpu
def test_a_sweep_that_is_killed_and_resumed_equals_one_that_was_not(swept):
    whole, parts = swept

    def rows(folder, name):
        columns, lines = read_table(folder / name)
        kept = [i for i, column in enumerate(columns) if column not in WALL_CLOCK]
        return [[cells[i] for i in kept] for cells in [columns, *lines]]

    for name in ("metrics.csv", "sweep.csv"):
        assert rows(whole, name) == rows(parts, name)
    assert (whole / "evaluation.json").read_bytes() == (parts / "evaluation.json").read_bytes()
    policies = [load_policy(folder, number=1).params for folder in swept]
    chex.assert_trees_all_equal(*policies)


@on_cpu
def test_a_sweep_ends_with_the_figures_of_its_points_and_of_each_run(swept):
    whole, _ = swept
    found = json.loads((whole / "evaluation.json").read_text())
    good, bad = found["points"]
    assert good["values"] == {"hyper.learning_rate": 0.01} and (good["runs"], good["diverged"]) == ([0, 1], [])
    assert bad["values"] == {"hyper.learning_rate": DIVERGES} and bad["diverged"] == [2, 3] and bad["best"] is None
    assert [(run["number"], run["seed"]) for run in found["runs"]] == [(0, 0), (1, 1), (2, 0), (3, 1)]
    assert [run["diverged"] is None for run in found["runs"]] == [True, True, False, False]
    returns = [run["conditions"]["nominal"]["return"]["value"] for run in found["runs"][:2]]
    assert good["conditions"] == found["conditions"] and found["runs"][2]["conditions"] == {}
    assert good["conditions"]["nominal"]["return"]["value"] == pytest.approx(np.mean(returns))
    assert (whole / "curves.png").stat().st_size > 10_000


@on_cpu
def test_runs_of_a_sweep_equal_runs_alone(swept):
    """The whole configuration: the policy that is loaded by its number is that of its seed and its numbers."""
    whole, _ = swept
    one = members(SWEEP)[1].config
    runner = build(one).runner
    state, step = jax.jit(runner.init)(*beginning(one)), jax.jit(runner.step)
    for _ in range(4):
        state, info = step(state)
    policy = load_policy(whole, number=1)
    chex.assert_trees_all_close(policy.params, state.learner.params["actor"], rtol=1e-3, atol=1e-4)
    assert dataclasses.replace(policy.config, run_dir="") == one and policy.steps == 64
    each = read_metrics(whole / "sweep.csv")
    last = {name: values[each["number"] == 1][-1] for name, values in each.items()}
    assert last["loss/value"] == pytest.approx(float(info["loss/value"]), rel=1e-3)
    with pytest.raises(UserError, match="holds 4 runs, numbered from 0: there is no number 4"):
        load_policy(whole, number=4)
    assert member_file("policy.onnx", whole, 0) == "policy-0.onnx"
    assert member_file("whole", whole, 1) == "whole-1"


@on_cpu
def test_a_sweep_that_does_not_fit_into_memory_is_refused_before_there_is_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory_usage, "available", lambda: 1_000)
    with pytest.raises(SystemExit, match="2"):
        complete(SWEEP, tmp_path / "run")
    said = capsys.readouterr().err
    assert re.search(r"a sweep of 4 runs needs 0\.0 GB and more, .*: choose fewer seeds, a smaller", said)
    assert not (tmp_path / "run").exists()


SPEC = EnvSpec(
    observation=(Term("position", 2, unit="m"), Term("last_action", 2, unit="1")),
    privileged=(),
    action=ActionTable(("x", "y"), (0.0,) * 2, (1.0,) * 2, (-1.0,) * 2, (1.0,) * 2),
    control_dt=0.1,
    episode_seconds=1.0,
)
BC_SWEEP = BCRun(
    task="Hand",
    head="gaussian",
    hidden_size=8,
    horizon=3,
    n_action_steps=2,
    steps=8,
    batch_size=4,
    validation=0.25,
    hyper=BCHyper(learning_rate=1e-2, warmup_steps=2, observation_dropout=0.2),
    seeds=2,
    grid=("hyper.learning_rate=1e-2,1e-1",),
)


@pytest.fixture(scope="module")
def demonstrations():
    rng = np.random.default_rng(0)
    episodes = []
    for length in rng.integers(5, 12, 8):
        state = rng.normal(size=(length, 4)).astype(np.float32)
        episodes.append(Episode({"state": state}, np.tanh(state[:, :2]), np.zeros(length), False, True, "Hand", 10.0))
    return prepare(in_memory(episodes, ["state"]), BC_SWEEP, SPEC)


def train_bc(run, demonstrations, **options):
    """Two iterations of two gradient steps."""
    network = bc_run.make_actor(run, SPEC, demonstrations.scales)
    with bc_job(run, SPEC, network, demonstrations, steps_per_iteration=2, **options) as job:
        state = job.init()
        for _ in range(2):
            state, info = job.step(state)
    return state.learner, info


def test_bc_runs_side_by_side_equal_runs_alone(demonstrations):
    """Wherever their windows come from; runs of the same seed learn from the same ones."""
    alone, said = train_bc(members(BC_SWEEP)[3].config, demonstrations)
    for device_bytes in (0, 2**30):
        together, info = train_bc(BC_SWEEP, demonstrations, device_bytes=device_bytes)
        chex.assert_trees_all_close(member(together, 3).params, alone.params, rtol=1e-3, atol=1e-5)
        chex.assert_trees_all_close(member(info, 3), said, rtol=1e-3, atol=1e-5)
        assert all(value.shape == (4,) for value in info.values())
