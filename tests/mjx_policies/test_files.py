"""Files that a script may write: in its own place, where nothing is yet, or wherever it is told to overwrite."""

import errno
import os

import pytest

from mjx_policies import files
from mjx_policies.errors import UserError
from mjx_policies.files import output_file


def test_what_a_flag_names_is_replaced_only_when_told_to(tmp_path):
    own, other = tmp_path / "run" / "report.html", tmp_path / "README.md"
    assert output_file("", "--report", False, default=own) == own and own.parent.is_dir(), "the folder is made"
    assert output_file(tmp_path / "new" / "a.html", "--report", False, default=own).parent.is_dir()
    own.write_text("of the last time")
    other.write_text("somebody's")
    for named in ("", own, tmp_path / "run" / ".." / "run" / "report.html"):
        assert output_file(named, "--report", False, default=own).samefile(own), "its own place"
    for default in (own, None):
        with pytest.raises(UserError, match=r"README.md exists already: choose another --report, or .* --overwrite\."):
            output_file(other, "--report", False, default=default)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match="link exists already"):
        output_file(tmp_path / "link", "--report", False)
    assert output_file(str(other), "--report", True) == other
    assert other.read_text() == "somebody's" and own.read_text() == "of the last time", "it only checks"


@pytest.mark.parametrize("overwrite", [False, True])
def test_places_that_cannot_be_written(tmp_path, overwrite, monkeypatch):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for name, sentence in (
        ("", "is a folder: name a file in it for --json"),
        ("pipe", "is not a plain file"),
        ("file/a.json", "cannot create the folder"),
        (260 * "a", "named by --json: File name too long"),
        (250 * "a", "named by --json: File name too long"),  # too long for what it is written under
        (260 * "a" + "/a.json", "cannot create the folder"),
    ):
        with pytest.raises(UserError, match=sentence):
            output_file(tmp_path / name, "--json", overwrite)

    def refuse(**kwargs):
        raise OSError(30, "Read-only file system")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for where, name in ((files.Path, "mkdir"), (files.tempfile, "TemporaryFile")):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):  # see `errors.sentence`
            patch.setattr(where, name, full)
            output_file(tmp_path / "a.json", "--json", overwrite)
    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"cannot write .*, named by --json: Read-only file system\."):
        output_file(tmp_path / "a.json", "--json", overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"], "nothing is left behind"
