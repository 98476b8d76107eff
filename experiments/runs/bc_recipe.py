"""Behaviour cloning as a run: see `run`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from mjx_policies.data.store import Store
from mjx_policies.envs.base import Env
from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.errors import UserError
from mjx_policies.experiments.runs import bc
from mjx_policies.experiments.runs.bc import BCRun
from mjx_policies.experiments.runs.bc_steps import bc_job
from mjx_policies.experiments.runs.demonstrations import (
    Demonstrations,
    check_datasets,
    fit_head,
    open_demonstrations,
    prepare,
)
from mjx_policies.experiments.runs.loading import TrainedPolicy, load_policy
from mjx_policies.experiments.runs.recipe import Display, Parts, Recipe
from mjx_policies.heads import registry
from mjx_policies.training.checkpoints import checkpoint_steps
from mjx_policies.training.preemption import Preemption
from mjx_policies.training.run_folder import RunFolder
from mjx_policies.training.waiting import working
from mjx_policies.types import PyTree

ITERATION = 100  # gradient steps, at most
DISPLAY = Display(
    progress=("loss/train", "action/error", "eval/success"),
    curves=("eval/success", "action/error", "loss/train", "loss/validation", "gradient/norm", "learning_rate"),
    steps="gradient steps",
)


def check(run: BCRun, task: Env) -> PyTree:
    """Refuses what cannot run, before anything is written; returns the shapes of the learner, if they are known.

    Raises:
      UserError: there is no such dataset, or nobody to demonstrate the task.
      ValueError: what the configuration asks for does not exist or does not fit.
    """
    if not task.spec.stages:
        raise ValueError(f"{run.task} has no stages to solve, by which checkpoints are compared: take another --task")
    if not run.demos:
        load_expert(run.task, task)
    check_datasets(run, task)
    if run.init_from:
        load_initial(run)
    if run.head in registry.FITTED:  # those are built once they are fitted
        return ()
    learner = bc.make_learner(run, task.spec, bc.make_actor(run, task.spec, bc.blank_scales(run, task.spec)))
    return jax.eval_shape(learner.init, jax.random.key(run.seed), bc.example(run, task.spec), run.hyper)


@contextlib.contextmanager
def assemble(
    run: BCRun, task: Env, folder: RunFolder, console: Console, preemption: Preemption, store: Store | None = None
) -> Iterator[Parts]:
    """Demonstrations, those of `store` if they are open already, and the learner that suits them."""
    with working(console, "reading demonstrations"):
        store = open_demonstrations(run, task, folder.path, preemption, console) if store is None else store
        demonstrations = prepare(store, run, task.spec)
    shape = (run.horizon, task.spec.action.size)
    params = None
    if run.init_from:
        initial = load_initial(run)
        params, fitted = initial.params, registry.read_fitted(run.head, shape, Path(run.init_from))
        demonstrations = dataclasses.replace(demonstrations, scales=params["scales"])
        registry.save_fitted(fitted, folder.path)
    elif folder.resumed and checkpoint_steps(folder.path / "checkpoints"):
        fitted = registry.read_fitted(run.head, shape, folder.path)
    else:
        with working(console, "fitting the head to the actions"):
            fitted = fit_head(run, demonstrations, task.spec)
            registry.save_fitted(fitted, folder.path)
    network = bc.make_actor(run, task.spec, demonstrations.scales, fitted)
    iterations = run.evaluations * -(-run.steps // (run.evaluations * ITERATION))  # so that the last is evaluated
    per_iteration = -(-run.steps // iterations)
    console.print(describe(run, demonstrations), highlight=False)
    with bc_job(run, task.spec, network, demonstrations, per_iteration, params=params) as job:
        acts = functools.partial(bc.make_policy, run, task.spec, network)
        yield Parts(job, per_iteration * iterations, acts, lambda learner: learner.average)


def describe(run: BCRun, demonstrations: Demonstrations) -> str:
    """A sentence on the demonstrations, with the error of a constant action for comparison."""
    split, rows = demonstrations.split, demonstrations.windows.store.arrays["action"]
    constant = float(np.abs(rows - np.median(rows, axis=0)).mean())
    return (
        f"{len(split.training)} demonstrations to learn from, {len(split.validation)} held out; "
        f"{len(demonstrations.training):,} windows of {run.horizon} actions. "
        f"An action that is always the same would be off by {constant:.3f}."
    )


def load_initial(run: BCRun) -> TrainedPolicy:
    """The policy that goes on learning.

    Raises:
      UserError: its network is another one.
    """
    initial = load_policy(Path(run.init_from), run.backend, kind="bc")
    for name in ("task", "actions", "head", "hidden_size", "horizon", "n_obs_steps", "exclude_terms", "seeds"):
        before, now = getattr(initial.config, name), getattr(run, name)
        if before != now:
            raise UserError(f"the policy of {run.init_from} has {name} {before!r}, this run {now!r}: they must agree.")
    return initial


RECIPE = Recipe(
    check,
    assemble,
    DISPLAY,
    name=lambda run: f"{run.task}-{run.head}",
    interim_episodes=lambda run: run.interim_episodes,
    interim_condition="nominal",
    keep_best="eval/success",
)
