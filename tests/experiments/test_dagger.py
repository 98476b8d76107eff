"""Rounds of corrections that need no training; the others are in `test_bc_pretrain.py`, where there is a policy."""

import dataclasses
from types import SimpleNamespace

import pytest

from mjx_policies.errors import UserError
from mjx_policies.experiments import dagger
from mjx_policies.training.progress import open_console
from mjx_policies.training.run_folder import RunFolder


def test_finished_rounds_of_corrections_have_nothing_to_resume(tmp_path, capsys):
    asked = dagger.Dagger(run=str(tmp_path / "run"), rounds=2, run_dir=str(tmp_path / "rounds"))
    RunFolder.create(tmp_path / "rounds", asked).close()
    (tmp_path / "rounds/round_2").mkdir()
    for name in ("round_2/evaluation.json", "rounds.png"):
        (tmp_path / "rounds" / name).touch()
    dagger.main(dataclasses.replace(asked, resume=True))
    assert "rounds is finished, with 2 rounds" in capsys.readouterr().out
    with pytest.raises(UserError, match="goes on as it began, but episodes: 50 in the run, now 9"):
        dagger.main(dataclasses.replace(asked, resume=True, episodes=9))


def test_a_round_without_usable_rollouts_is_told(tmp_path, monkeypatch):
    config = SimpleNamespace(task="Obstacle2D", backend="cpu", actions=None, horizon=1, seed=0)
    policy = SimpleNamespace(config=config, params=None, acts=lambda params: None)
    monkeypatch.setattr(dagger, "load_policy", lambda *_, **__: policy)
    monkeypatch.setattr(dagger, "load", lambda *_: SimpleNamespace(spec=SimpleNamespace(control_dt=0.1)))
    monkeypatch.setattr(dagger, "load_expert", lambda *_: SimpleNamespace(strategies=("left",)))
    monkeypatch.setattr(dagger, "dagger_demonstrator", lambda *_: None)
    monkeypatch.setattr(dagger, "make_recorder", lambda *_: lambda keys: None)
    monkeypatch.setattr(dagger, "to_episodes", lambda *_, **__: [])
    with pytest.raises(UserError, match=r"^no usable rollouts in round 3: see with play\.py"):
        dagger.label(dagger.Dagger(run="run"), tmp_path / "round_2", tmp_path / "labels_3", 3, open_console())
    assert not list(tmp_path.iterdir())
