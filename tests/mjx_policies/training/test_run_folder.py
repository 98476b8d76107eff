import dataclasses
import json
import os

import pytest

from mjx_policies.errors import UserError
from mjx_policies.files import read_json, write_atomic, write_json
from mjx_policies.training.config import may_change
from mjx_policies.training.run_folder import RunFolder, RunFolderError, read_config


@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 0.1
    total_steps: int = may_change(100)


@dataclasses.dataclass(frozen=True)
class Other:
    size: int = 3


def objection(call, *arguments):
    with pytest.raises(RunFolderError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    return text


def test_a_run_is_created_once_and_opened_again(tmp_path):
    path = tmp_path / "a" / "run"
    with RunFolder.create(path, Config()) as run:
        assert not run.resumed and run.config(Config) == Config()
    made_with = json.loads((path / "config.json").read_text())["made_with"]
    assert made_with["versions"]["jax"] and made_with["devices"] and made_with["platform"]
    assert "already holds a run. Choose another --run-dir or pass --resume" in objection(
        RunFolder.create, path, Config()
    )
    with RunFolder.open(path, Config()) as run:
        assert run.resumed
    assert read_config(path, Config) == Config()


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    assert "not empty (it holds thesis.tex)" in objection(RunFolder.create, tmp_path, Config())
    assert "is a file" in objection(RunFolder.create, tmp_path / "thesis.tex", Config())
    assert "is a file" in objection(RunFolder.open, tmp_path / "thesis.tex", Config())
    assert "cannot create" in objection(RunFolder.create, tmp_path / "thesis.tex" / "run", Config())
    assert "holds no run" in objection(RunFolder.open, tmp_path, Config())
    assert "holds no run" in objection(RunFolder.open, tmp_path / "missing", Config())


def test_what_a_process_left_that_died_at_once_is_a_new_folder(tmp_path):
    (tmp_path / "run.lock").write_text("123\n")
    RunFolder.create(tmp_path, Config()).close()


def test_what_a_kill_in_the_first_write_left_is_removed(tmp_path):
    leftover = tmp_path / ".config.json.123.tmp"
    (tmp_path / "run.lock").write_text("123\n")
    leftover.write_text("{")
    RunFolder.create(tmp_path, Config()).close()
    assert not leftover.exists()
    leftover.write_text("{")
    RunFolder.open(tmp_path, Config()).close()
    assert not leftover.exists()


def test_an_error_before_anything_was_learned_leaves_the_folder_free(tmp_path):
    def fail(path, *files):
        with pytest.raises(RuntimeError), RunFolder.create(path, Config()) as run:
            (path / "checkpoints").mkdir()
            for name, text in files:
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_text(text)
            raise RuntimeError("too many robots for this device")
        assert run.path == path

    (tmp_path / "mine").mkdir()
    for name in ("ours", "mine"):
        fail(tmp_path / name, ("metrics.csv", "step\n"), ("tensorboard/events", "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and not list((tmp_path / "mine").iterdir())
    fail(tmp_path / "logged", ("metrics.csv", "step\n10\n"))
    fail(tmp_path / "saved", ("checkpoints/000000000010/manifest.json", "{}"))
    fail(tmp_path / "crashed", ("crash/000000000000/manifest.json", "{}"))
    for name in ("logged", "saved", "crashed"):
        with pytest.raises(RuntimeError), RunFolder.open(tmp_path / name, Config()):
            raise RuntimeError


def test_a_resumed_run_knows_what_is_not_as_it_was(tmp_path):
    RunFolder.create(tmp_path, Config()).close()
    with RunFolder.open(tmp_path) as run:
        assert run.changes == ()
    data = read_json(tmp_path / "config.json")
    here = data["made_with"]["versions"]["jax"]
    data["made_with"]["versions"] |= {"jax": "0.1.2", "optax": "0.0.1"}
    data["made_with"]["devices"] = "8 x tpu v9"
    write_json(tmp_path / "config.json", data)
    with RunFolder.open(tmp_path) as run:
        assert run.changes[0] == f"jax 0.1.2, now {here}" and run.changes[1].startswith("devices 8 x tpu v9, now ")
    for strange in (None, [], {"versions": 3}):
        write_json(tmp_path / "config.json", {**data, "made_with": strange})
        with RunFolder.open(tmp_path) as run:
            assert run.changes == ()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"config": 3, "format": 1}', '{"a": 1, "a": 1}', " " * (1 << 20) + "{}"]
)
def test_a_foreign_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    for refused in (objection(RunFolder.open, tmp_path, Config()), objection(read_config, tmp_path, Config)):
        assert "holds no run" in refused and "Restore its config.json" in refused


def test_links_and_pipes_are_not_read(tmp_path):
    write_json(tmp_path / "real.json", {})
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    with pytest.raises(UserError, match="it is a link"):
        read_json(tmp_path / "link.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UserError, match="not a plain file"):
        read_json(tmp_path / "pipe.json")


def test_another_format_is_refused(tmp_path):
    write_json(tmp_path / "config.json", {"format": 99, "config": {}})
    assert "format 99" in objection(RunFolder.open, tmp_path, Config())


def test_a_changed_configuration_is_refused_unless_it_may_change(tmp_path):
    RunFolder.create(tmp_path / "run", Config()).close()
    text = objection(RunFolder.open, tmp_path / "run", Config(rate=0.2))
    assert "rate: 0.1 in the run, now 0.2" in text
    RunFolder.open(tmp_path / "run", Config(total_steps=500)).close()
    assert read_config(tmp_path / "run", Config).total_steps == 500
    assert "holds the run of another script, " in objection(RunFolder.open, tmp_path / "run", Other())
    assert "holds the run of another script, " in objection(read_config, tmp_path / "run", Other)
    RunFolder.open(tmp_path / "run").close()


def test_the_lock_holds_until_it_is_closed(tmp_path):
    run = RunFolder.create(tmp_path / "run", Config())
    assert f"process {os.getpid()} is training" in objection(RunFolder.open, tmp_path / "run", Config())
    assert f"process {os.getpid()} is training" in objection(RunFolder.create, tmp_path / "run", Config())
    run.close()
    run.close()
    with RunFolder.open(tmp_path / "run", Config()):
        pass
    with pytest.raises(RunFolderError):  # a refusal gives the lock back
        RunFolder.open(tmp_path / "run", Config(rate=1.0))
    RunFolder.open(tmp_path / "run", Config()).close()


def test_a_refused_folder_keeps_no_lock(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert "is not empty (it holds notes.txt)" in objection(RunFolder.create, tmp_path / "full", Config())
    assert os.listdir(tmp_path / "full") == ["notes.txt"]
    RunFolder.create(tmp_path / "run", Config()).close()
    (tmp_path / "run" / "run.lock").unlink()  # as in a copy
    assert "cannot be resumed" in objection(RunFolder.open, tmp_path / "run", Config(rate=1.0))
    assert os.listdir(tmp_path / "run") == ["config.json"]


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    assert "File name too long" in objection(RunFolder.create, tmp_path / ("x" * 300), Config())
    assert "File name too long" in objection(RunFolder.open, tmp_path / ("x" * 300), Config())
    (tmp_path / "file").write_text("")
    assert "Not a directory" in objection(RunFolder.create, tmp_path / "file" / "run", Config())


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").symlink_to(tmp_path / "elsewhere")
    assert "cannot write to" in objection(RunFolder.create, tmp_path / "run", Config())
    assert not (tmp_path / "elsewhere").exists()


def test_a_failed_write_leaves_the_old_text(tmp_path, monkeypatch):
    write_atomic(tmp_path / "file", "old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
