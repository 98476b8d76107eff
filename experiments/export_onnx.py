"""Exports the policy of a run as one ONNX file: python experiments/export_onnx.py --run runs/a

The file carries its contract: joints, observation, limits, clock, commands, examples. `mjx_policies.deploy` runs it
without JAX.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.deploy import contract
from mjx_policies.deploy.policy import ExportedPolicy
from mjx_policies.deploy.validation import parse_model
from mjx_policies.errors import UserError
from mjx_policies.experiments.runs.loading import TrainedPolicy, load_policy, member_file
from mjx_policies.export import Provenance, describe, export_policy, require_packages
from mjx_policies.export.noise import noise_inputs
from mjx_policies.export.onnx_file import TOLERANCE
from mjx_policies.export.parity import extremes, measure_parity
from mjx_policies.export.tables import by_time, ranges
from mjx_policies.files import output_file, replacing
from mjx_policies.randomization.domain import randomize
from mjx_policies.randomization.presets import PRESETS
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors
from mjx_policies.training.waiting import working

SAMPLED = 3e-4
"""Difference allowed where a network goes over its actions many times: each pass amplifies the rounding of the last."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Exports the policy of a run."""

    run: Path  # run folder
    number: int = 0  # number of the run in a sweep
    out: Path | None = None  # ONNX file; None: policy.onnx in the run folder
    overwrite: bool = False  # replace the file that --out names


def main(export: Export) -> None:
    """Writes the file and says what is in it."""
    with clean_errors(ValueError):
        require_packages()
        policy = load_policy(export.run, number=export.number)
        default = export.run / member_file("policy.onnx", export.run, export.number)
        out = output_file(export.out, "--out", export.overwrite, default=default)
    console = open_console()
    act, noise = as_exported(policy)
    with working(console, "exporting"), clean_errors(ValueError):
        met = observations(policy)
        exported = export_policy(act, policy.task.spec.action, described(policy), met, noise=noise)
    with working(console, "comparing with JAX"), clean_errors(ValueError):
        asked = np.concatenate([met, extremes(met, max(0, 10_000 - len(met)))])
        still = [jnp.full(each.shape, each.deterministic) for each in noise]
        ready = ExportedPolicy(parse_model(exported.data))
        parity = measure_parity(lambda observation: act(observation, *still), ready, asked)
        tolerance = SAMPLED if noise else TOLERANCE
        if not parity.scaled_error <= tolerance:
            raise UserError(
                f"the export differs from the policy by {parity.scaled_error:.1e}, more than {tolerance:g}."
            )
    with clean_errors(OSError), replacing(out) as temporary:
        temporary.write_bytes(exported.data)
    promised = exported.contract
    console.print(
        f"{out}: {len(exported.data):,} bytes, {promised.training.task} after {policy.steps:,} steps, "
        f"{promised.observation_size} observations -> {len(promised.joints)} joints\n"
        f"sha256 of the contract: {promised.sha256}\n"
        f"{parity.observations:,} observations, {len(met):,} of them met in training, the others extreme: "
        f"differs from JAX by at most {parity.max_error:.1e}, {parity.mean_error:.1e} on average; "
        f"one step takes {1e6 * parity.latency_p50:.0f} us, 99 % of them at most {1e6 * parity.latency_p99:.0f} us"
    )


def described(policy: TrainedPolicy) -> dict[str, Any]:
    """The contract of a trained policy."""
    spec, model, config = policy.task.spec, policy.task.physics.model, policy.config
    preset = PRESETS.get(spec.robot)
    low, high = config.randomization.latency
    late = contract.Range("observation_latency", "add", (float(low),), (float(high),))
    provenance = Provenance(
        task=config.task,
        steps=policy.steps,
        seed=config.seed,
        delay=config.randomization.delay,
        ranges=(*(() if preset is None else ranges(preset(model))), late),
        commit=commit(),
    )
    return describe(spec, model, provenance, max(1, policy.n_obs_steps), max(1, policy.horizon))


def as_exported(policy: TrainedPolicy) -> tuple[Callable[..., jax.Array], tuple[contract.NoiseInput, ...]]:
    """The network as the contract has it: observation [D] and noise -> action [A] or [H, A]."""
    place = by_time(policy.task.spec, policy.n_obs_steps) if policy.n_obs_steps else None

    def act(observation: jax.Array, *numbers: jax.Array) -> jax.Array:
        action = policy({"state": observation if place is None else observation[place]}, *numbers)
        return action[0] if policy.horizon == 1 else action

    return act, noise_inputs(policy.noise)


def observations(policy: TrainedPolicy, episodes: int = 16, steps: int = 300) -> np.ndarray:  # [N, D]
    """Observations of rollouts with the training's randomization."""
    env, dynamics = randomize(policy.task, policy.config.randomization)
    robot, n_obs_steps = policy.acts(policy.params), max(1, policy.n_obs_steps)

    def advance(carry, now):
        state, obs, memory = carry
        number, key = now
        action, memory = robot.act(memory, key, obs, number)
        state, timestep = env.step(state, action)
        return (state, timestep.obs, memory), obs["state"]

    @jax.jit
    @jax.vmap
    def run(key):
        key_env, key_dynamics = jax.random.split(key)
        state, timestep = env.reset(key_env, dynamics(key_dynamics).dynamics)
        keys = jax.random.split(jax.random.fold_in(key, steps), steps)
        begin = (state, timestep.obs, robot.init(key, timestep.obs))
        return jax.lax.scan(advance, begin, (jnp.arange(steps), keys))[1]

    found = np.asarray(run(jax.random.split(jax.random.key(policy.config.seed), episodes)))  # [B, T, D]
    if not policy.n_obs_steps:
        return found.reshape(episodes * steps, -1)
    seen = np.maximum(np.arange(steps)[:, None] + np.arange(1 - n_obs_steps, 1), 0)  # [T, O]
    flat = np.empty((episodes, steps, n_obs_steps * found.shape[-1]), np.float32)
    flat[..., by_time(policy.task.spec, n_obs_steps)] = found[:, seen]
    return flat.reshape(episodes * steps, -1)


def commit() -> str:
    """The commit of the code, with a plus sign where it has been changed since; empty outside a repository."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()


if __name__ == "__main__":
    with clean_errors():
        main(parse_arguments(Export, __doc__))
