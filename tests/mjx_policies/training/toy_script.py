"""A script that ends as its first argument says, as tests of endings start it. It imports nothing that takes long."""

import ctypes
import os
import signal
import sys
import threading
import time
import warnings

from mjx_policies.errors import UserError
from mjx_policies.training import script
from mjx_policies.training.preemption import Preempted, exit_code
from mjx_policies.training.script import clean_errors


class Unraisable:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def main(ending: str) -> None:
    match ending:
        case "print":
            print("5 ± 1 → 3 × 2 … ≥ 90 % ü")
            print("± ü", file=sys.stderr)
        case "lines":
            for number in range(100_000):
                print(f"line {number}")
        case "wait":
            print("waiting", flush=True)
            time.sleep(60)
        case "interrupt in a callback":  # which JAX makes an error of its own of
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt as error:
                raise RuntimeError("INTERNAL: CpuCallback error calling callback") from error
        case "interrupt of a child":  # which tells of its end
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise UserError("ffmpeg ended with code 255.") from None
        case "interrupt where nothing can be raised":
            Unraisable()
            time.sleep(60)
        case "preempted":
            raise SystemExit(exit_code("SIGTERM"))
        case "preempted between":
            raise Preempted("SIGUSR2")
        case "terminated":
            signal.raise_signal(signal.SIGTERM)
        case "terminated while it compiles":  # what no signal interrupts: the second lock never ends
            c, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
            c.pthread_mutex_lock(mutex)
            script.SIGNAL_GRACE = 0.1
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            c.pthread_mutex_lock(mutex)
        case "heard by a loop":  # which takes its time
            script.SIGNAL_GRACE = 0.1
            signal.signal(signal.SIGINT, lambda number, frame: print("heard", flush=True))
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.5)
        case "exit handlers":  # do not run: they would wait for threads that compute for nobody
            import atexit

            atexit.register(print, "handler")
            signal.raise_signal(signal.SIGINT)
        case "semaphore":  # its tracker, another process, would pass over a warning that is an error
            import multiprocessing

            sys.warnoptions.clear()
            lock = multiprocessing.get_context("spawn").Lock()
            signal.raise_signal(signal.SIGINT)
            del lock
        case "streams":
            print(sys.stdin.read(), end="")
            print("said")
            with open(sys.argv[2], "w") as file:
                file.write("kept")
                os.write(1, b"")  # whoever has number 1 now
        case _:
            warnings.warn("no such ending", stacklevel=1)


if __name__ == "__main__":
    with clean_errors():
        main(sys.argv[1])
