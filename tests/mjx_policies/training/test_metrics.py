import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mjx_policies.errors import UserError
from mjx_policies.training.metrics import MetricsCsv, TensorBoard, format_number, read_metrics, read_table


def write(path, rows, resume_at=None):
    table = MetricsCsv(path, resume_at)
    for row in rows:
        table.write(row)
    table.sync()
    table.close()


@given(st.floats(allow_nan=False) | st.floats(allow_nan=False, width=32).map(np.float32) | st.integers())
def test_numbers_read_back_exactly(number):
    assert type(number)(format_number(number)) == number


def test_float32_is_written_with_the_digits_that_it_has():
    assert format_number(np.float32(0.1)) == "0.1" and format_number(np.int32(3)) == "3"


def test_new_metrics_get_a_column_at_the_end(tmp_path):
    path = tmp_path / "metrics.csv"
    write(path, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "eval/x, y": 1.0}, {"step": 3, "loss": math.nan}])
    assert path.read_text() == 'step,loss,"eval/x, y"\n1,0.5,\n2,0.25,1.0\n3,nan,\n'
    table = read_metrics(path)
    assert table["step"].tolist() == [1, 2, 3] and np.isnan(table["eval/x, y"]).tolist() == [True, False, True]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from("abc"), st.floats(allow_nan=False), max_size=3), max_size=8),
    data=st.data(),
)
def test_a_table_cut_anywhere_and_continued_equals_one_that_was_not(tmp_path, rows, data):
    numbered = [{"step": 10 * (i + 1), **dict(sorted(row.items()))} for i, row in enumerate(rows)]
    whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"
    whole.unlink(missing_ok=True)
    parts.unlink(missing_ok=True)
    write(whole, numbered)
    stopped = data.draw(st.integers(0, len(rows)))
    saved = data.draw(st.integers(0, stopped))
    write(parts, numbered[:stopped])
    if stopped > saved:  # the last line may be torn, but never one that a checkpoint knows of
        lines = parts.read_text().splitlines(keepends=True)
        torn = lines[-1][: data.draw(st.integers(1, len(lines[-1])))]
        parts.write_text("".join(lines[:-1]) + torn)
    write(parts, numbered[saved:], resume_at=10 * saved)
    assert parts.read_text() == whole.read_text()


def test_a_new_run_does_not_overwrite_a_table(tmp_path):
    write(tmp_path / "metrics.csv", [])
    with pytest.raises(UserError, match="is there already"):
        MetricsCsv(tmp_path / "metrics.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "first column is not step"),
        (b"name,age\na,3\n", "first column is not step"),
        (b"step,x\n1,2,3\n", "damaged in line 2"),
        (b"step,x\none,2\n", "damaged in line 2"),
        (b"\xff\xfe\n", "no table of metrics"),
        (b"step,x\n1,word\n", "damaged"),
    ],
)
def test_foreign_tables_are_refused(tmp_path, content, message):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_metrics(path)


def test_a_missing_table_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        read_table(tmp_path / "metrics.csv")


def events(path):
    """The events of a file: records of a length [8], a checksum [4], an event and its checksum [4]."""
    from tensorboardX.proto.event_pb2 import Event

    data = path.read_bytes()
    while data:
        length = int.from_bytes(data[:8], "little")
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_tensorboard_takes_finite_numbers_and_resumes(tmp_path):
    for resume_at in (None, 10):
        writer = TensorBoard(tmp_path, resume_at)
        writer.write({"step": 20, "loss": np.float32(1.5), "return": math.nan})
        writer.sync()
        writer.close()
    first, second = ([*events(path)] for path in sorted(tmp_path.glob("events.out.tfevents.*")))
    for found in (first, second):
        assert found[0].file_version == "brain.Event:2" and found[-1].step == 20
        assert [(value.tag, value.simple_value) for value in found[-1].summary.value] == [("loss", 1.5)]
    assert len(first) == 2 and [(event.step, event.session_log.status) for event in second[1:-1]] == [(11, 1)]


def test_a_full_disk_is_met_where_tensorboard_writes(tmp_path, no_room_for_tensorboard):
    writer = TensorBoard(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        for step in range(10_000):  # far beyond any buffer or queue
            writer.write({"step": step, "loss": 1.0})
    with pytest.raises(OSError, match="No space left"):
        writer.close()
