import sys

import pytest

from mjx_policies.data import lerobot, packages
from mjx_policies.data.describe import Describe, main


def test_says_what_a_dataset_holds(make_episode, tmp_path, capsys):
    lerobot.write(tmp_path / "data", [make_episode(4 + n, n) for n in range(3)])
    main(Describe(tmp_path / "data", statistics=True))
    words = capsys.readouterr().out
    assert "3 episodes of lerobot, 15 steps at 20 Hz, 1s in all" in words
    assert "4 to 6 steps, 5 in the middle" in words and "Tasks: task 0, task 1" in words
    assert "| grid | int64 | 2 x 3 |" in words and "| action[2] | " in words
    assert "1 success" in words and "1 failure" in words and "1 unknown" in words


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # what an import then says is that there is none
    with pytest.raises(ValueError, match=r"needs pyarrow, which is missing: pip install 'mjx-policies\[data\]'"):
        lerobot.Writer(tmp_path)
    with pytest.raises(ValueError, match="needs nowhere_to_be_found"):
        packages.load("nowhere_to_be_found.part", "reading")
