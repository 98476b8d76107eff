import json
import os
import resource
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import struct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mjx_policies.errors import UserError
from mjx_policies.training import checkpoint as checkpoint_module
from mjx_policies.training.checkpoint import (
    CheckpointError,
    CheckpointMismatchError,
    read_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)
from mjx_policies.training.checkpoints import Checkpoints, checkpoint_steps, newest_checkpoint
from mjx_policies.training.trees import describe, mismatches


class Pair(NamedTuple):
    a: object
    b: object


@struct.dataclass
class Learner:
    params: dict
    opt_state: object
    key: object


def full_tree():
    params = {"params": {"Dense_0": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.full(3, -0.0)}}}
    keys = {"one": jax.random.key(3), "many": jax.random.split(jax.random.key(4, impl="rbg"), (2, 2))}
    return {
        "learner": Learner(params, optax.adam(1e-3).init(params), keys),
        "pair": Pair(jnp.zeros((0, 5), jnp.int32), [True, 3, 2.5, None, ()]),
        "a.b/c": jnp.asarray([jnp.nan, jnp.inf, -jnp.inf], jnp.bfloat16),
        "host": (np.arange(4, dtype=np.float64), np.float32(1.5), np.array([True, False]), np.complex64(1j)),
        "raw_key": jax.random.PRNGKey(1),
        "bytes": jnp.arange(256, dtype=jnp.uint8),
    }


def small_tree():
    return {"w": jnp.arange(6.0).reshape(2, 3), "n": jnp.asarray(3)}


def reason(path, template=None, **options):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, small_tree() if template is None else template, **options)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and str(path) in text
    return text


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "7"
    write_checkpoint(path, small_tree(), {"step": 7})
    return path


@pytest.mark.parametrize("name", ["run[lr=3e-4]", "a b", "[bold]x[/bold]", "q?*"])
def test_a_folder_may_have_any_name(tmp_path, name, assert_same_bits):
    path = tmp_path / name / "1"
    write_checkpoint(path, small_tree())
    assert_same_bits(read_checkpoint(path, small_tree())[0], small_tree())


def test_every_kind_of_leaf_comes_back_bit_for_bit(tmp_path, assert_same_bits):
    write_checkpoint(tmp_path / "0", full_tree(), {"note": "hello"})
    tree, meta = read_checkpoint(tmp_path / "0", jax.tree.map(lambda leaf: leaf, full_tree()))
    assert_same_bits(full_tree(), tree)
    assert meta == {"note": "hello"}
    assert not any(getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves(tree))


def test_abstract_templates_and_parts_can_be_read(tmp_path, assert_same_bits):
    write_checkpoint(tmp_path / "0", full_tree())
    abstract = jax.eval_shape(lambda: full_tree()["learner"])
    learner, _ = read_checkpoint(tmp_path / "0", abstract, at="learner")
    assert_same_bits(full_tree()["learner"], learner)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        hnp.arrays(
            st.sampled_from([np.float32, np.int8, np.uint32, np.bool_, np.float16, np.uint16]),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_arrays_come_back(tmp_path, arrays):
    arrays = [array.view(ml_dtypes.bfloat16) if array.dtype == np.uint16 else array for array in arrays]
    write_checkpoint(tmp_path / "0", arrays)
    tree, _ = read_checkpoint(tmp_path / "0", arrays)
    for before, after in zip(arrays, tree, strict=True):
        assert before.dtype == after.dtype and before.shape == after.shape and before.tobytes() == after.tobytes()


def test_a_tree_without_arrays_can_be_saved(tmp_path):
    write_checkpoint(tmp_path / "0", {"empty": jnp.zeros((0,))})
    assert read_checkpoint(tmp_path / "0", {"empty": jnp.zeros((0,))})[0]["empty"].shape == (0,)


def test_sharded_arrays_return_to_their_devices(tmp_path):
    mesh = jax.make_mesh((1,), ("env",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("env"))
    tree = {"x": jax.device_put(jnp.arange(8.0), sharding), "key": jax.device_put(jax.random.key(0), jax.devices()[0])}
    write_checkpoint(tmp_path / "0", tree)
    back, _ = read_checkpoint(tmp_path / "0", tree)
    assert back["x"].sharding == sharding and back["x"].committed and back["key"].committed
    assert np.array_equal(back["x"], np.arange(8.0))


def test_other_trees_are_told_by_the_first_leaf_that_differs(saved):
    other = {"w": jnp.zeros((2, 4)), "n": jnp.zeros((), jnp.uint8), "m": {"x": jnp.zeros(1)}}
    assert mismatches(describe(other), describe(small_tree())) == [
        "m.x: expected float32[1], got nothing",
        "n: expected uint8[], got int32[]",
        "w: expected float32[2,4], got float32[2,3]",
    ]
    with pytest.raises(CheckpointMismatchError, match=r"\(m\.x: expected float32\[1\], got nothing; 2 more differ\)"):
        read_checkpoint(saved, other)
    with pytest.raises(CheckpointMismatchError, match=r"w: expected nothing, got float32\[2,3\]"):
        read_checkpoint(saved, {"n": jnp.asarray(3)})


def test_leaves_that_cannot_be_saved_are_told(tmp_path):
    with pytest.raises(UserError, match="is a str"):
        write_checkpoint(tmp_path / "0", {"name": "text"})
    with pytest.raises(UserError, match=r"two leaves called a\.b"):
        write_checkpoint(tmp_path / "0", {"a": {"b": jnp.zeros(1)}, "a.b": jnp.zeros(1)})
    assert not list(tmp_path.iterdir())


def test_what_is_no_checkpoint_is_refused(tmp_path, saved):
    assert "not a folder" in reason(tmp_path / "missing")
    file = tmp_path / "file"
    file.write_text("x")
    assert "not a folder" in reason(file)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "the folder is empty" in reason(empty)
    (empty / "data.pkl").write_bytes(b"\x80\x04.")
    assert "no checkpoint of this library" in reason(empty)
    (empty / "manifest.json").write_text('{"name": "a web page"}')
    assert "foreign" in reason(empty)
    link = tmp_path / "link"
    link.symlink_to(saved)
    assert "not a folder" in reason(link)


def some_array_file(path):
    return max((path / "arrays").rglob("*"), key=lambda file: file.stat().st_size if file.is_file() else -1)


def test_damage_is_found(saved):
    file = some_array_file(saved)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert "truncated or altered" in reason(saved)
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert "truncated or altered" in reason(saved)
    file.write_bytes(b"")
    assert "truncated or altered" in reason(saved)
    file.unlink()
    assert "is missing" in reason(saved)
    file.write_bytes(whole)
    (saved / "extra").write_text("x")
    assert "extra does not belong to it" in reason(saved)
    (saved / "extra").unlink()
    read_checkpoint(saved, small_tree())


def test_an_altered_manifest_is_found(saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["meta"]["step"] = 8
    (saved / "manifest.json").write_text(json.dumps(manifest))
    assert "manifest.json was altered" in reason(saved)
    for text in ("", "{", "[1]", "null", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, "\x00"):
        (saved / "manifest.json").write_text(text)
        reason(saved)
    (saved / "manifest.json").write_text(json.dumps({"format": 99, "sha256": ""}))
    assert "format 99, this version reads 1" in reason(saved)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(["leaves", "files", "meta", "versions"]), value=JSON)
def test_a_forged_manifest_never_raises_anything_else(saved, field, value):
    text = (saved / "manifest.json").read_text()
    manifest = {**json.loads(text), field: value}
    del manifest["sha256"]
    manifest["sha256"] = checkpoint_module._digest(manifest)
    (saved / "manifest.json").write_text(json.dumps(manifest))
    try:
        read_checkpoint(saved, small_tree())
    except CheckpointError:
        pass
    finally:
        (saved / "manifest.json").write_text(text)


def test_a_forged_shape_is_refused_before_the_array_is_read(tmp_path):
    write_checkpoint(tmp_path / "big", {"w": jnp.zeros((300, 300)), "n": jnp.asarray(3)})
    manifest = json.loads((tmp_path / "big" / "manifest.json").read_text())
    manifest["leaves"]["w"] = "float32[2,3]"
    del manifest["sha256"]
    manifest["sha256"] = checkpoint_module._digest(manifest)
    (tmp_path / "big" / "manifest.json").write_text(json.dumps(manifest))
    assert "w has shape (300, 300)" in reason(tmp_path / "big")


def test_links_and_large_folders_are_refused_unread(tmp_path, saved):
    assert "more than the 100 allowed" in reason(saved, max_bytes=100)
    file = some_array_file(saved)
    secret = tmp_path / "secret"
    shutil.move(file, secret)
    file.symlink_to(secret)
    assert "is a link" in reason(saved)
    file.unlink()
    os.mkfifo(file)
    assert "no plain file" in reason(saved)


def test_a_failed_save_leaves_the_old_one_and_no_temporary_files(saved, monkeypatch, assert_same_bits):
    def fail(path):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "flush_to_disk", fail)
        with pytest.raises(CheckpointError, match=r"was not saved: .*Input/output error"):
            write_checkpoint(saved, {"other": jnp.zeros(1)})
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    verify_checkpoint(saved)


@pytest.mark.parametrize(
    ("before", "advice"), [([], "from the start: nothing"), ([1], "with --resume and .* goes on from step 1")]
)
def test_a_full_disk_is_told_in_one_sentence(tmp_path, caplog, before, advice):
    series = Checkpoints(tmp_path)
    for step in before:
        series.save(step, small_tree())
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # no file may grow beyond: a disk that is full
    try:
        sentence = rf"the disk is full, make room\. Run again {advice}"
        with pytest.raises(CheckpointError, match=sentence):
            series.save(2, {"w": np.random.default_rng(0).normal(size=100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not caplog.records, "threads of Orbax tell what is told in a sentence"
    assert checkpoint_steps(tmp_path) == before and len(list(tmp_path.iterdir())) == len(before)
    assert (series.restore(small_tree()) is not None) == bool(before)


def test_the_newest_and_the_best_stay(tmp_path):
    series = Checkpoints(tmp_path, keep=2)
    for step, score in enumerate([0.0, 3.0, None, 2.0, None, 3.0, None, None]):
        series.save(step, small_tree(), score=score)
    assert checkpoint_steps(tmp_path) == [5, 6, 7]  # of equal scores the later one
    assert newest_checkpoint(tmp_path).name == "000000000007"
    with pytest.raises(ValueError, match="at least one"):
        Checkpoints(tmp_path, keep=0)


def test_a_kill_while_an_old_one_is_deleted_leaves_no_damaged_one(tmp_path, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    series = Checkpoints(tmp_path, keep=1)
    series.save(1, small_tree())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", killed)
        series.save(2, small_tree())
    assert checkpoint_steps(tmp_path) == [2]
    Checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000002"]


def test_leftovers_are_cleaned_and_damaged_ones_set_aside(tmp_path):
    series = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        series.save(step, small_tree(), {"at": step})
    shutil.copytree(tmp_path / "000000000003", tmp_path / ".saving-000000000004")
    some_array_file(tmp_path / "000000000003").write_bytes(b"")
    shutil.rmtree(tmp_path / "000000000002" / "arrays")
    said = []
    series = Checkpoints(tmp_path)
    restored = series.restore(small_tree(), said.append)
    assert restored.step == 1 and restored.meta == {"at": 1}
    assert len(said) == 2 and all("Going back to step 1." in line for line in said)
    assert checkpoint_steps(tmp_path) == [1]
    assert sorted(path.name for path in tmp_path.iterdir())[1:] == ["000000000002.damaged", "000000000003.damaged"]


def test_a_save_that_was_killed_between_its_two_renames_is_mended(tmp_path):
    Checkpoints(tmp_path).save(1, small_tree())
    (tmp_path / "000000000001").rename(tmp_path / ".saving-000000000001-replaced")
    assert Checkpoints(tmp_path).restore(small_tree()).step == 1


def test_when_none_is_intact_the_error_says_so(tmp_path):
    series = Checkpoints(tmp_path)
    assert series.restore(small_tree()) is None
    series.save(1, small_tree())
    some_array_file(tmp_path / "000000000001").write_bytes(b"")
    with pytest.raises(CheckpointError, match="No intact one is left"):
        series.restore(small_tree())
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        newest_checkpoint(tmp_path / "elsewhere")


def test_a_checkpoint_from_elsewhere_is_not_taken_for_one_of_the_run(tmp_path):
    series = Checkpoints(tmp_path)
    write_checkpoint(tmp_path / "000000000009", small_tree(), {"step": 9})
    with pytest.raises(CheckpointError, match="was not written for this place"):
        series.restore(small_tree())


def test_another_structure_is_no_reason_to_go_back(tmp_path):
    series = Checkpoints(tmp_path)
    series.save(1, small_tree())
    series.save(2, {"other": jnp.zeros(1)})
    with pytest.raises(CheckpointMismatchError):
        series.restore(small_tree())
    assert checkpoint_steps(tmp_path) == [1, 2]
