"""Rounds of corrections that need no training; the others are in `test_bc_pretrain.py`, where there is a policy."""

import dataclasses

import pytest

from mjx_policies.experiments import dagger
from mjx_policies.training.errors import UserError
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
