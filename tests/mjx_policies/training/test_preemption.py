import signal
import subprocess
import sys
import threading

import pytest

from mjx_policies.training.preemption import SIGNALS, Preempted, Preemption


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_becomes_a_flag_and_handlers_return(capfd, number):
    before = [signal.getsignal(n) for n in SIGNALS]
    with Preemption() as preemption:
        assert preemption.requested is None
        preemption.check()
        signal.raise_signal(number)
        assert preemption.requested == number.name
        with pytest.raises(Preempted, match=number.name):
            preemption.check()
    assert [signal.getsignal(n) for n in SIGNALS] == before and signal.set_wakeup_fd(-1) == -1
    said = capfd.readouterr().err
    assert said.startswith(f"{number.name}: stopping once the work at hand is done") and said.count("\n") == 1


KEPT = """
import ctypes, sys, threading
from mjx_policies.training.preemption import Preemption

c, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
unlock = lambda: (sys.stdin.readline(), c.pthread_mutex_unlock(mutex))
with Preemption() as preemption:
    c.pthread_mutex_lock(mutex)
    threading.Thread(target=unlock).start()
    print("compiling", flush=True)
    c.pthread_mutex_lock(mutex)  # which no signal interrupts, as none does XLA
    print(preemption.requested)
"""


def test_a_signal_is_told_of_before_its_handler_can_run():
    with subprocess.Popen(
        [sys.executable, "-c", KEPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "compiling\n"
            process.send_signal(signal.SIGINT)
            line = process.stderr.readline()  # while it still waits
            assert line == "SIGINT: stopping once the work at hand is done; another Ctrl-C gives it up\n"
            assert process.communicate("\n", timeout=60) == ("SIGINT\n", "") and process.returncode == 0
        finally:
            process.kill()


def test_a_second_interrupt_raises_even_through_other_errors():
    before = signal.getsignal(signal.SIGINT)
    for wrap in (False, True):
        with pytest.raises(KeyboardInterrupt), Preemption():
            signal.raise_signal(signal.SIGINT)
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt as error:
                if wrap:
                    raise RuntimeError("as JAX does in a callback") from error
                raise
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_left_alone():
    seen = []

    def run():
        with Preemption() as preemption:
            seen.append(preemption.requested)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [None] and signal.getsignal(signal.SIGTERM) is before
