import dataclasses

import jax
import numpy as np
import pytest

from mjx_policies.errors import UserError
from mjx_policies.experiments.runs.loading import load_policy
from mjx_policies.experiments.runs.ppo import PPORun, build
from mjx_policies.training.checkpoints import Checkpoints
from mjx_policies.training.run_folder import RunFolder

CONFIG = PPORun(task="Pendulum", num_envs=4, policy_layers=(8,), critic_layers=(8,))


def test_the_newest_checkpoint_of_a_run_acts_as_it_did(tmp_path):
    parts = build(CONFIG)
    init = jax.jit(parts.runner.init)
    with RunFolder.create(tmp_path / "run", CONFIG) as folder:
        for step in (96, 192):  # the seed tells them apart
            Checkpoints(folder.path / "checkpoints").save(step, init(jax.random.key(step), CONFIG.hyper))
        policy = load_policy(folder.path)  # while the run goes on
    assert (policy.config, policy.steps) == (CONFIG, 192)
    state = init(jax.random.key(192), CONFIG.hyper)
    obs = jax.tree.map(lambda rows: rows[0], state.envs.obs)
    acts = parts.learner.policy(state.learner).act
    np.testing.assert_array_equal(policy(obs), acts((), jax.random.key(0), obs, 0)[0])
    assert policy.noise is None and (policy.n_obs_steps, policy.horizon) == (0, 0)
    restored = policy.acts(policy.params)
    np.testing.assert_array_equal(
        restored.act(restored.init(jax.random.key(0), obs), jax.random.key(0), obs, 0)[0], policy(obs)
    )


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    init = jax.jit(build(CONFIG).runner.init)
    with RunFolder.create(tmp_path / "run", CONFIG) as folder:
        for step in (96, 192):
            Checkpoints(folder.path / "checkpoints").save(step, init(jax.random.key(step), CONFIG.hyper))
    manifests = [folder.path / "checkpoints" / f"{step:012d}" / "manifest.json" for step in (96, 192)]
    manifests[1].write_text("{")
    said = []
    assert load_policy(folder.path, say=said.append).steps == 96
    assert len(said) == 1 and "is damaged" in said[0] and said[0].endswith("Going back to step 96.")
    assert manifests[1].exists(), "who only reads leaves the run as it is"
    manifests[0].unlink()
    with pytest.raises(UserError, match="No intact one is left"):
        load_policy(folder.path)


def test_what_is_missing_is_told_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder \(it has no config.json\)"):
        load_policy(tmp_path)
    RunFolder.create(tmp_path / "young", CONFIG).close()
    with pytest.raises(UserError, match="holds no checkpoint"):
        load_policy(tmp_path / "young")
    RunFolder.create(tmp_path / "odd", dataclasses.replace(CONFIG, task="Swimmer")).close()
    (tmp_path / "odd" / "checkpoints" / "000000000001").mkdir(parents=True)
    with pytest.raises(ValueError, match="unknown task 'Swimmer'"):
        load_policy(tmp_path / "odd")
