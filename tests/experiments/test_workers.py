"""Episodes in worker processes: an end before the first of them."""

import io

import pytest

from mjx_policies.experiments import workers
from mjx_policies.training.preemption import Preempted, Preemption
from mjx_policies.training.progress import LiteralConsole


class AlreadyAsked(Preemption):
    def __enter__(self):
        self.requested = "SIGTERM"
        return super().__enter__()


def test_a_signal_before_the_first_result_is_passed_on(monkeypatch):
    monkeypatch.setattr(workers, "Preemption", AlreadyAsked)
    console = LiteralConsole(file=io.StringIO())
    with pytest.raises(Preempted, match="SIGTERM"):
        workers.run_in_workers(list, [1, 2], 1, console, lambda results: "")
    assert console.file.getvalue() == ""
