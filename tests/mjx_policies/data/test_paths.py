"""Names beside a dataset."""

from pathlib import Path

import pytest

from mjx_policies.data.paths import about, beside


@pytest.mark.parametrize("name", ["demos", "demos/", "./demos", "demos.v2"])
def test_a_name_beside_a_relative_path_is_relative(name):
    path = Path(name)
    assert about(path) == Path(f"{path}.about") and beside(path, ".hdf5") == Path(f"{path}.hdf5")


def test_the_working_directory_and_the_one_above_it_have_names_too(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    assert about(Path(".")) == tmp_path / "a/b.about" and about(Path("..")) == tmp_path / "a.about"
    assert about(Path("/")) == Path("/.about")
