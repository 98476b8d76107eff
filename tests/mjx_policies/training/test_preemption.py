import signal
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
        assert capfd.readouterr().err.startswith(f"{number.name}: stopping once the work at hand is done")
        with pytest.raises(Preempted, match=number.name):
            preemption.check()
    assert [signal.getsignal(n) for n in SIGNALS] == before


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
