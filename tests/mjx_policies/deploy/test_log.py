import json
import os
import signal
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from mjx_policies.deploy.contract import Action, Contract, ContractTerm, Golden, Joint, RobotModel, Timing, Training
from mjx_policies.deploy.controller import Mode, Output
from mjx_policies.deploy.log import CODES, LogError, LogField, RingLog, describe, read_log, tick_fields, tick_values
from mjx_policies.deploy.robot import Targets
from mjx_policies.deploy.safety import FAULTS, Fault
from mjx_policies.spec import CommandRange

FIELDS = (LogField("time", "<f8"), LogField("pose", "<f4", (3,)), LogField("mode", "|u1"), LogField("text", "|S8"))


def fill(path, count, capacity=10, close=True):
    log = RingLog(path, capacity, FIELDS)
    for step in range(count):
        log.write({"time": 0.1 * step, "pose": np.full(3, step), "mode": step % 5, "text": f"step {step}"})
    if close:
        log.close()
    return log


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 25])
def test_the_newest_records_come_back_in_order(tmp_path, count):
    fill(tmp_path / "log", count)
    log = read_log(tmp_path / "log")
    steps = np.arange(count)[-10:]
    np.testing.assert_array_equal(log.records["number"], steps + 1)
    np.testing.assert_array_equal(log.records["time"], 0.1 * steps)
    np.testing.assert_array_equal(log.records["pose"], np.repeat(steps, 3).reshape(-1, 3))
    assert log.records["text"].tolist() == [f"step {step}".encode() for step in steps]
    assert log.torn == 0


def test_it_can_be_read_while_it_is_written(tmp_path):
    log = fill(tmp_path / "log", 3, close=False)
    assert len(read_log(tmp_path / "log").records) == 3
    log.write({})
    last = read_log(tmp_path / "log").records[-1]
    assert np.isnan(last["time"]) and np.isnan(last["pose"]).all() and last["mode"] == 0 and last["text"] == b""
    log.close()
    log.close()
    with pytest.raises(LogError, match="is closed"):
        log.write({})


def test_what_does_not_fit_is_refused(tmp_path):
    with RingLog(tmp_path / "log", 4, FIELDS) as log:
        with pytest.raises(LogError, match="no field 'color'; it has: time, pose, mode, text"):
            log.write({"color": 1})
        with pytest.raises(LogError, match=r"'pose' of a log has shape \(3,\), not \(2,\)"):
            log.write({"pose": np.zeros(2)})
        log.write({"text": "longer than eight", "pose": np.full(3, 1e300)})
    record = read_log(tmp_path / "log").records[0]
    assert record["text"] == b"longer t" and np.isinf(record["pose"]).all()


@pytest.mark.parametrize(
    ("capacity", "fields", "sentence"),
    [
        (0, FIELDS, "capacity of 0 records"),
        (10**9, FIELDS, "lower its capacity"),
        (4, (), "no fields"),
        (4, (LogField("a", "O"),), "a field it cannot hold"),
        (4, (LogField("a", "<f8", (-1,)),), "a field it cannot hold"),
        (4, (LogField("a", "<f8"), LogField("a", "<f4")), "a field twice"),
        (4, (LogField("number", "<f8"),), "named number"),
        (4, (LogField("a" * 70_000, "<f8"),), "too many fields"),
    ],
)
def test_a_log_that_cannot_be_is_not_begun(tmp_path, capacity, fields, sentence):
    with pytest.raises(LogError, match=sentence):
        RingLog(tmp_path / "log", capacity, fields)
    assert not (tmp_path / "log").exists()


def test_a_log_is_never_overwritten(tmp_path):
    fill(tmp_path / "log", 3)
    with pytest.raises(LogError, match="exists already: choose another name"):
        RingLog(tmp_path / "log", 10, FIELDS)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LogError, match="exists already"):
        RingLog(tmp_path / "link", 10, FIELDS)
    with pytest.raises(LogError, match="cannot be created: No such file"):
        RingLog(tmp_path / "missing" / "log", 10, FIELDS)
    assert len(read_log(tmp_path / "log").records) == 3


def test_a_full_disk_is_found_at_the_start(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(LogError, match="No space left on device"):
        RingLog(tmp_path / "log", 10, FIELDS)
    assert not (tmp_path / "log").exists()


WRITER = """
import os, sys
from mjx_policies.deploy.log import LogField, RingLog
log = RingLog(sys.argv[1], 300, [LogField("step", "<i8"), LogField("square", "<f4", (500,))])
for step in range(1, 1_000_000):
    log.write({"step": step, "square": [float(step % 1000) ** 2] * 500})
    os.write(1, b"%d\\n" % step)
"""


@pytest.mark.parametrize("steps", [50, 1000])
def test_all_that_was_written_outlives_a_kill(tmp_path, steps):
    path = tmp_path / "log"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    for _ in range(steps):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    written = int((process.stdout.read().split() or [steps])[-1])
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    log = read_log(path)
    assert log.torn <= 1
    number = log.records["step"]
    assert written <= number[-1] + log.torn and number[-1] <= written + 1
    assert len(number) + log.torn == min(300, number[-1] + log.torn)
    np.testing.assert_array_equal(np.diff(number), 1)
    expected = (number % 1000).astype(np.float32) ** 2
    np.testing.assert_array_equal(log.records["square"], np.repeat(expected[:, None], 500, 1))


def test_a_torn_record_is_left_out(tmp_path):
    path = tmp_path / "log"
    fill(path, 25)
    good = path.read_bytes()
    size = (len(good) - (start := struct.unpack_from("<I", good, 8)[0])) // 10
    random = np.random.default_rng(0)
    for _ in range(100):
        slot = random.integers(10)
        data = bytearray(good)
        data[start + slot * size + random.choice([*range(12), *range(16, size)])] ^= 1 << random.integers(8)
        path.write_bytes(data)
        log = read_log(path)
        assert log.torn == 1 and len(log.records) == 9
        assert set(range(16, 26)) - set(log.records["number"].tolist()) == {(slot - 5) % 10 + 16}
    # A whole record in the slot of another is not where it was written.
    data = bytearray(good)
    data[start : start + size] = data[start + size : start + 2 * size]
    path.write_bytes(data)
    assert read_log(path).torn == 1


def header(value, magic=b"MJXPLOG1", records=b""):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<8sII", magic, 16 + len(text), zlib.crc32(text)) + text + records


GOOD = {"version": 1, "capacity": 1, "fields": [["a", "<f8", []]]}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not a log"),
        (b"MJXPLOG1", "not a log"),
        (b"\x7fELF" + bytes(1000), "not a log"),
        (header(GOOD, b"MJXPLOG2"), "not a log"),
        (header(GOOD)[:-3], "damaged header"),
        (header(GOOD).replace(b"capacity", b"capacitx"), "damaged header"),
        (struct.pack("<8sII", b"MJXPLOG1", 3, 0), "damaged header"),
        (struct.pack("<8sII", b"MJXPLOG1", 2**32 - 1, 0), "damaged header"),
        (header(b"{"), "not JSON"),
        (header(b"[" * 30_000), "not JSON"),
        (header([]), "another version"),
        (header({**GOOD, "version": 2}), "another version"),
        (header({**GOOD, "capacity": True}), "capacity of True"),
        (header({**GOOD, "capacity": -1}), "capacity of -1"),
        (header({**GOOD, "capacity": 2**60}), "a capacity of"),
        (header({**GOOD, "fields": {}}), "no fields"),
        (header({**GOOD, "fields": [["a", "|O", []]]}), "cannot hold"),
        (header({**GOOD, "fields": [["a", "<f8", [2**60]]]}), "cannot hold"),
        (header({**GOOD, "fields": [["a", "<f8", [2**16] * 4]]}), "truncated|do not fit"),
        (header({**GOOD, "fields": [["a", "<f8"]]}), "cannot hold"),
        (header(GOOD), "truncated"),
        (header(GOOD, records=bytes(25)), "longer than it should be"),
        (header({**GOOD, "capacity": 1000}, records=bytes(24)), "truncated"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, data, sentence):
    (tmp_path / "log").write_bytes(data)
    with pytest.raises(LogError, match=sentence) as caught:
        read_log(tmp_path / "log")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_truncated_log_is_refused_wherever_it_ends(tmp_path):
    fill(tmp_path / "log", 25)
    data = (tmp_path / "log").read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "log").write_bytes(data[:length])
        with pytest.raises(LogError, match=r"not a log|damaged header|truncated"):
            read_log(tmp_path / "log")


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, sentence in {"pipe": "not a plain file", ".": "not a plain file|cannot be", "no": "No such file"}.items():
        with pytest.raises(LogError, match=sentence):
            read_log(tmp_path / name)


def test_every_fault_is_described():
    assert describe(0) == "no fault" and describe(200) == "unknown fault 200" and describe(-1) == "unknown fault -1"
    for code, name in enumerate(FAULTS, start=1):
        assert CODES[code] == name and describe(code) == f"{name}: {FAULTS[name]}"


def test_a_tick_is_logged_whole(tmp_path):
    contract = Contract(
        schema_version="1.0",
        robot=RobotModel("toy", "", "wxyz"),
        timing=Timing(0.02, 0.005, 0.04, (0.0, 0.0)),
        joints=tuple(Joint(name, 0, 0, 1, 1, 1, -1, 1, -0.9, 0.9, 9, 9) for name in ("hip", "knee")),
        observation=(ContractTerm("gyro", 3, "rad/s", "imu", 1, 0, 2, True, "first", 0, 0, True),),
        action=Action("joint_position", 0.0, 9.0, 1),
        state=(),
        noise=(),
        commands=(CommandRange("forward", "m/s", -1, 1),),
        gait=None,
        randomization=(),
        training=Training("toy", 0, 0, "", {}),
        golden=Golden({}, {}, "", 1e-5),
        graph_sha256="",
    )
    pair = np.array([0.25, 0.5])
    output = Output(
        targets=Targets(pair, pair, pair),
        mode=Mode.FAULT,
        fault=Fault("tilt", "the robot leans."),
        note="",
        fresh=True,
        held=False,
        reordered=False,
        age=0.001,
        inference_seconds=0.002,
        command=np.array([0.5]),
        values={"joint_position": pair, "joint_velocity": -pair, "gyro": np.arange(3), "temperature": pair},
        observation=np.arange(6, dtype=np.float32),
        action=None,
        target=2 * pair,
    )
    with RingLog(tmp_path / "log", 5, tick_fields(contract)) as log:
        log.write(tick_values(7.0, output, missed=3))
    (record,) = read_log(tmp_path / "log").records
    assert record["time"] == 7.0 and Mode(record["mode"]) is Mode.FAULT and record["missed"] == 3
    assert describe(record["fault"]).startswith("tilt:") and record["text"] == b"the robot leans."
    assert record["age"] == 0.001 and record["inference_seconds"] == 0.002 and record["command"] == [0.5]
    assert record["joint_velocity"].tolist() == [-0.25, -0.5] and record["gyro"].tolist() == [0, 1, 2]
    assert record["observation"].tolist() == [0, 1, 2, 3, 4, 5] and record["target"].tolist() == [0.5, 1.0]
    assert np.isnan(record["action"]).all() and np.isnan(record["orientation"]).all()
