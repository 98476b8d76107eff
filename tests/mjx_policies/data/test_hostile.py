"""Files that are broken, or made to do harm: each is refused in one sentence, and does none."""

import json
import pickle
import re
import shutil

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mjx_policies.data import columns, formats, lerobot, minari, robomimic, store
from mjx_policies.errors import UserError

DATA, EPISODES, INFO = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet", "meta/info.json"


def read_all(dataset):
    return [episode for episode in dataset]


def refuses(read, words):
    with pytest.raises(UserError, match=words) as caught:
        read_all(read())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.fixture(scope="module")
def lerobot_master(make_episode, tmp_path_factory):
    path = tmp_path_factory.mktemp("master") / "data"
    lerobot.write(path, [make_episode(5, n, pictures=True) for n in range(3)])
    return path


@pytest.fixture
def folder(lerobot_master, tmp_path):
    shutil.copytree(lerobot_master, tmp_path / "data")
    return tmp_path / "data"


def edit_info(folder, **changes):
    info = json.loads((folder / INFO).read_text())
    (folder / INFO).write_text(json.dumps({**info, **changes}))


def edit_feature(folder, name, **changes):
    features = json.loads((folder / INFO).read_text())["features"]
    edit_info(folder, features={**features, name: {**features[name], **changes}})


def edit_table(path, **changes):
    table = pq.read_table(path)
    for name, values in changes.items():
        name = name.replace("__", "/")
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codebase_version": "v4.0"}, "this package reads v3.0: use a newer one"),
        ({"codebase_version": "v2.1"}, "convert it to v3.0"),
        ({"codebase_version": None}, "version"),
        ({"fps": 0}, "fps as 0"),
        ({"fps": True}, "fps as True"),
        ({"features": {}}, "no feature 'action'"),
        ({"total_episodes": 4}, "has 3 episodes, meta/info.json counts 4"),
        ({"total_episodes": "3"}, "whole number"),
        ({"data_path": "../../etc/passwd"}, "not in its folder"),
        ({"data_path": "/etc/passwd"}, "not in its folder"),
        ({"data_path": "data/chunk-{chunk_index:03d}/missing.parquet"}, "No such file"),
        ({"data_path": "data/{chunk_index.__class__}"}, "may only fill in"),
        ({"data_path": "data/{chunk_index:0999999999d}"}, "may only fill in"),
        ({"data_path": "data/{robot}"}, "may only fill in"),
        ({"data_path": "data/{chunk_index"}, "may only fill in"),
        ({"data_path": 3}, "lacks a template"),
    ],
)
def test_info(folder, changes, words):
    edit_info(folder, **changes)
    refuses(lambda: lerobot.read(folder), words)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("action", {"shape": [4]}, r"not rows of the shape \[4\]"),
        ("action", {"shape": [2**40]}, "too many"),
        ("action", {"shape": [-1]}, "which is none"),
        ("action", {"shape": "3"}, "which is none"),
        ("action", {"dtype": "int64"}, "holds float32, meta/info.json says int64"),
        ("action", {"dtype": "string"}, "no vector of numbers"),
        ("action", {"dtype": 3}, "no dtype"),
        ("observation.pixels", {"shape": [6, 9, 3]}, "picture 0 .* is 6 by 8, not 6 by 9"),
        ("observation.pixels", {"shape": [2**20, 2**20, 3]}, "camera"),
        ("observation.pixels", {"dtype": "video"}, "lacks a template of paths that has video_key"),
    ],
)
def test_features(folder, name, changes, words):
    edit_feature(folder, name, **changes)
    refuses(lambda: lerobot.read(folder), words)


def test_json(folder):
    text = (folder / INFO).read_text()
    (folder / INFO).write_text(text.replace('"fps": 20', '"fps": 20, "fps": 30'))
    refuses(lambda: lerobot.read(folder), "a key occurs twice")
    (folder / INFO).write_text(text.replace('"fps": 20', '"fps": NaN'))
    refuses(lambda: lerobot.read(folder), "NaN")
    (folder / INFO).write_text(text[:100])
    refuses(lambda: lerobot.read(folder), "not valid JSON")
    (folder / INFO).write_text("[" * 100_000)
    refuses(lambda: lerobot.read(folder), "not valid JSON")
    (folder / INFO).write_text("[]")
    refuses(lambda: lerobot.read(folder), "object of JSON")


@pytest.mark.parametrize("name", [INFO, DATA, EPISODES])
def test_links_out_of_the_folder(folder, name):
    secret = folder.parent / "secret"
    (folder / name).rename(secret)
    (folder / name).symlink_to(secret)
    refuses(lambda: lerobot.read(folder), "it is a link")


def test_a_linked_folder(folder):
    (folder / "data").rename(folder.parent / "elsewhere")
    (folder / "data").symlink_to(folder.parent / "elsewhere")
    refuses(lambda: lerobot.read(folder), "it is a link")


@pytest.mark.parametrize("name", [DATA, EPISODES])
@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_truncated_files(folder, name, share):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(share * len(data))])
    refuses(lambda: lerobot.read(folder), "is damaged, copy it again")


def test_flipped_bytes(folder):
    """Every one is either refused, or changes nothing but values."""
    data = (folder / DATA).read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(data), 60):
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.integers(8)
        (folder / DATA).write_bytes(damaged)
        try:
            read_all(lerobot.read(folder))
        except UserError as error:
            assert "\n" not in str(error)


def test_wrong_lengths(folder):
    edit_table(folder / EPISODES, length=pa.array([5, 6, 5]))
    refuses(lambda: lerobot.read(folder), "has 5 steps of episode 1 where the table of episodes says 6")


def test_lengths_that_fill_the_memory(folder):
    edit_table(folder / EPISODES, length=pa.array([5, 2**39, 5]))
    refuses(lambda: lerobot.read(folder), "would take")


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("length", [0, 5, 5], "gives length as 0"),
        ("length", [None, 5, 5], "gives length as None"),
        ("data__file_index", [-1, 0, 0], "whole number"),
        ("episode_index", [0, 0, 2], "has episode 0 twice, and differently"),
        ("episode_index", [0, 1, 3], "leaves out"),
        ("tasks", ["a", "b", "c"], "list of texts"),
    ],
)
def test_table_of_episodes(folder, column, values, words):
    edit_table(folder / EPISODES, **{column: pa.array(values)})
    refuses(lambda: lerobot.read(folder), words)


def test_an_episode_twice(folder):
    other = folder / EPISODES.replace("000.parquet", "001.parquet")
    shutil.copy(folder / EPISODES, other)
    assert len(read_all(lerobot.read(folder))) == 3  # as after a merge that was killed
    edit_table(other, length=pa.array([5, 4, 5]))
    refuses(lambda: lerobot.read(folder), "has episode 1 twice, and differently")


def test_steps_out_of_order(folder):
    table = pq.read_table(folder / DATA)
    pq.write_table(table.take([1, 0, *range(2, len(table))]), folder / DATA)
    refuses(lambda: lerobot.read(folder), "out of order")


def test_numbers_that_are_none(folder):
    column = pq.read_table(folder / DATA)["next.reward"].to_pylist()
    edit_table(folder / DATA, **{"next.reward": pa.array([float("nan"), *column[1:]], pa.float32())})
    refuses(lambda: lerobot.read(folder), r"episode 0 of .*: reward holds nan at \[0\]")
    edit_table(folder / DATA, **{"next.reward": pa.array([None, *column[1:]], pa.float32())})
    refuses(lambda: lerobot.read(folder), "empty entries")
    edit_table(folder / DATA, **{"next.reward": pa.array(["1"] * len(column))})
    refuses(lambda: lerobot.read(folder), "must hold numbers")


def test_columns_missing_or_twice(folder):
    table = pq.read_table(folder / DATA)
    pq.write_table(table.drop_columns(["action"]), folder / DATA)
    refuses(lambda: lerobot.read(folder), "lacks the column 'action'")
    names = [*table.column_names[:-1], "action"]
    pq.write_table(table.rename_columns(names), folder / DATA)
    refuses(lambda: lerobot.read(folder), "a column twice")


def test_few_bytes_for_very_many_values(folder, monkeypatch):
    """One value, repeated: a few hundred kB on the disk, 32 MB in memory."""
    monkeypatch.setattr(columns, "MAX_EPISODE_BYTES", 2**24)
    table = pa.table({"episode_index": pa.array(np.zeros(2**22, np.int64))})
    pq.write_table(table, folder / EPISODES, row_group_size=2**22)
    assert (folder / EPISODES).stat().st_size < 2**19
    refuses(lambda: lerobot.read(folder), "more than 16,777,216 bytes: split it")


def test_pickled_types_are_not_loaded(folder, tmp_path):
    """Old versions of pyarrow unpickled what a schema held."""

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    table = pq.read_table(folder / DATA)
    extra = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle.dumps(Payload())}
    where = table.schema.get_field_index("action")
    table = table.cast(table.schema.set(where, table.schema.field(where).with_metadata(extra)))
    pq.write_table(table, folder / DATA)
    read_all(lerobot.read(folder))
    assert not (tmp_path / "harm").exists()


def test_pictures_that_lie_elsewhere_or_are_none(folder, tmp_path):
    pictures = pq.read_table(folder / DATA)["observation.pixels"].to_pylist()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for first, words in (
        ({"bytes": None, "path": "/etc/passwd"}, "missing, lies outside"),
        ({"bytes": b"GIF89a" + bytes(50), "path": ""}, "is damaged"),
        ({"bytes": pictures[0]["bytes"][:60], "path": ""}, "is damaged"),
    ):
        edit_table(folder / DATA, **{"observation.pixels": pa.array([first, *pictures[1:]], kind)})
        refuses(lambda: lerobot.read(folder), words)


def test_videos(official_lerobot, tmp_path):
    official_lerobot.write(tmp_path)
    video = tmp_path / "videos/observation.images.top/chunk-000/file-000.mp4"
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    refuses(lambda: lerobot.read(tmp_path), "damaged|no frame")
    # A list of further files, which ffmpeg would open if it were let.
    video.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/other.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "other.mp4").write_bytes(whole)
    refuses(lambda: lerobot.read(tmp_path), "is damaged")
    video.write_bytes(whole)
    times = pa.array([0.0, 0.4, 500.0])
    edit_table(tmp_path / EPISODES, **{"videos/observation.images.top/from_timestamp": times})
    refuses(lambda: lerobot.read(tmp_path), "has no frame at 500.000 s")


@pytest.fixture
def file(make_episode, tmp_path):
    path = tmp_path / "a.hdf5"
    robomimic.write(path, [make_episode(5, n) for n in range(2)])
    return path


def _external_link(demo, other):
    del demo["actions"]
    demo["actions"] = h5py.ExternalLink(str(other), "/data/demo_1/actions")


def _soft_link(demo, other):
    del demo["actions"]
    demo["actions"] = h5py.SoftLink("/data/demo_1/actions")


def _external_bytes(demo, other):
    del demo["actions"]
    demo.create_dataset("actions", (5, 3), np.uint8, external=[("/etc/passwd", 0, 15)])


def _virtual(demo, other):
    del demo["actions"]
    layout = h5py.VirtualLayout((5, 3), np.float32)
    layout[...] = h5py.VirtualSource(str(other), "/data/demo_1/actions", (5, 3))
    demo.create_virtual_dataset("actions", layout)


def _linked_group(demo, other):
    del demo["obs"]
    demo["obs"] = h5py.ExternalLink(str(other), "/data/demo_1/obs")


def _objects(demo, other):
    del demo["actions"]
    demo.create_dataset("actions", (5, 3), h5py.vlen_dtype(np.uint8))


def _texts(demo, other):
    del demo["actions"]
    demo["actions"] = np.array([[b"a"] * 3] * 5)


def _records(demo, other):
    del demo["actions"]
    demo["actions"] = np.zeros((5, 3), [("x", "f4")])


def _bomb(demo, other):
    del demo["actions"]
    demo.create_dataset("actions", (2**40, 3), np.float32, chunks=(2**10, 3), compression="gzip")


def _foreign_filter(demo, other):
    del demo["actions"]
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((5, 3))
    creation.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)  # zstd: a library looked for on the disk
    space = h5py.h5s.create_simple((5, 3))
    h5py.h5d.create(demo.id, b"actions", h5py.h5t.NATIVE_FLOAT, space, creation)


def _short(demo, other):
    del demo["rewards"]
    demo["rewards"] = np.zeros(4)


def _samples(demo, other):
    demo.attrs["num_samples"] = 6


def _nan(demo, other):
    demo["obs/state"][2, 1] = np.nan


def _missing(demo, other):
    del demo["actions"]


def _number_for_array(demo, other):
    del demo["actions"]
    demo["actions"] = 3.0


def _array_attribute(demo, other):
    demo.attrs["task"] = np.arange(5)


def _environment(demo, other):
    demo.parent.attrs["env_args"] = "{'env_name': __import__('os')}"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_external_link, "as a link, maybe into another file"),
        (_soft_link, "as a link"),
        (_linked_group, "as a link"),
        (_external_bytes, "lies in another file"),
        (_virtual, "lies in another file"),
        (_objects, "plain numbers"),
        (_texts, "plain numbers"),
        (_records, "plain numbers"),
        (_bomb, "would take more than"),
        (_foreign_filter, "filter 32015"),
        (_short, r"reward has the shape \[4\] for 5 actions"),
        (_samples, "has 5 actions, its num_samples is 6"),
        (_nan, r"observation\['state'\] holds nan at \[2, 1\]"),
        (_missing, "lacks 'actions'"),
        (_number_for_array, "as one number"),
        (_array_attribute, "must be one number or text"),
        (_environment, "must be an object of JSON"),
    ],
)
def test_hdf5(file, damage, words):
    other = file.with_name("other.hdf5")
    shutil.copy(file, other)
    with h5py.File(file, "a") as root:
        damage(root["data/demo_0"], other)
    refuses(lambda: robomimic.read(file), f"{re.escape(str(file))}.*{words}")


@pytest.mark.parametrize("share", [0, 0.05, 0.5, 0.95])
def test_truncated_hdf5(file, share):
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    refuses(lambda: robomimic.read(file), "damaged or no HDF5 file")


def test_a_linked_hdf5_file(file):
    file.with_name("b.hdf5").symlink_to(file)
    refuses(lambda: robomimic.read(file.with_name("b.hdf5")), "it is a link")


def test_minari_with_a_pickle_and_a_circle(tmp_path):
    (tmp_path / "metadata.json").write_text(json.dumps({"data_format": "hdf5"}))
    with h5py.File(tmp_path / "main_data.hdf5", "w") as file:
        episode = file.create_group("episode_0")
        episode["actions"], episode["rewards"] = np.zeros((2, 1)), np.zeros(2)
        episode["terminations"] = np.zeros(2, bool)
        episode["observations"] = np.void(pickle.dumps({}))
    refuses(lambda: minari.read(tmp_path, fps=1), "plain numbers")
    with h5py.File(tmp_path / "main_data.hdf5", "a") as file:
        del file["episode_0/observations"]
        group = file.create_group("episode_0/observations")
        group["again"] = group  # a hard link to itself
    refuses(lambda: minari.read(tmp_path, fps=1), "nested more than")


def test_stores(make_episode, tmp_path):
    store.build(tmp_path / "a", [make_episode()])
    info = json.loads((tmp_path / "a/store.json").read_text())
    for changes in ({"lengths": [-5]}, {"lengths": "5"}, {"task": [1]}, {"arrays": {}}, {"fps": None}, {"tasks": 3}):
        (tmp_path / "a/store.json").write_text(json.dumps({**info, **changes}))
        with pytest.raises(UserError, match="describes no store"):
            store.open_store(tmp_path / "a")
    arrays = {**info["arrays"], "../../x": {"type": "<f4", "shape": [1]}}
    for changes, words in (
        ({"format": 2}, "format 2"),
        ({"arrays": arrays}, "names the array"),
        ({"lengths": [6]}, "were written"),
        ({"arrays": {**info["arrays"], "state": {"type": "|O8", "shape": [4]}}}, "describes no store"),
    ):
        (tmp_path / "a/store.json").write_text(json.dumps({**info, **changes}))
        with pytest.raises(UserError, match=words):
            store.open_store(tmp_path / "a")


def test_no_dataset(tmp_path):
    for path, words in ((tmp_path / "x", "does not exist"), (tmp_path, "is no dataset of lerobot, robomimic, minari")):
        with pytest.raises(UserError, match=words):
            formats.read(path)
