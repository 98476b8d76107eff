"""Keys and sticks as a terminal, MuJoCo's viewer and Linux's driver of gamepads send them."""

import os
import struct

import numpy as np

from mjx_policies.experiments.collection import input as devices


def test_a_terminal_gives_names_and_no_parts_of_sequences():
    reading, writing = os.pipe()
    assert devices.read_typed(reading) == []
    os.write(writing, b"wA \r\x7f=\x1b[A")
    assert devices.read_typed(reading) == ["w", "a", " ", "enter", "backspace", "="]
    os.close(writing)
    assert devices.read_typed(reading) == ["x"]  # nobody is there any more
    os.close(reading)


def test_keys_of_the_viewer_have_the_names_of_the_terminal():
    assert [devices.glfw_key(code) for code in (ord("W"), 32, 257, 259, 61, 45, 256, 265)] == [
        "w", " ", "enter", "backspace", "=", "-", "", "",
    ]  # fmt: skip


def test_a_gamepad(tmp_path):
    """Events as Linux's driver writes them: struct js_event, the state at first marked as such."""
    os.mkfifo(tmp_path / "js0")
    event = struct.Struct("IhBB").pack
    with devices.gamepad(tmp_path / "js0", 6) as pad, open(tmp_path / "js0", "wb", buffering=0) as driver:
        driver.write(event(0, 0, 0x81, 0) + event(0, 1, 0x81, 7) + event(0, 900, 0x82, 1))
        assert pad.read() == [] and not pad.sticks.any()  # a button held from the start, a stick at rest
        driver.write(event(5, 1, 0x01, 0) + event(6, 0, 0x01, 0) + event(7, 1, 0x01, 7) + event(8, 1, 0x01, 9))
        driver.write(event(9, -32767, 0x02, 1) + event(9, 16384, 0x02, 3) + event(9, 5000, 0x02, 2))
        assert pad.read() == [" ", "enter"]
        np.testing.assert_allclose(pad.sticks, [1, 0, 0, 0, 0, -0.5], atol=1e-3)
        driver.write(event(10, 0, 0x02, 1))
        assert pad.read() == [] and pad.sticks[0] == 0
    with devices.gamepad(tmp_path / "js0", 2) as pad, open(tmp_path / "js0", "wb", buffering=0) as driver:
        driver.write(event(9, 32767, 0x02, 3) + event(9, 32767, 0x02, 0))
        pad.read()
        np.testing.assert_allclose(pad.sticks, [0, -1])
