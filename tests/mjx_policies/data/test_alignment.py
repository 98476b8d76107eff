import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mjx_policies.data.alignment import align

MOMENTS = st.lists(st.integers(0, 60), min_size=1, max_size=12, unique=True).map(lambda ticks: np.sort(ticks) / 10)


def slowly(times, values, moment, method, max_gap):
    """One step at a time, as it is said in words."""
    distance = np.abs(times - moment)
    nearest = int(np.argmin(distance))
    earlier = [i for i, t in enumerate(times) if t <= moment]
    later = [i for i, t in enumerate(times) if t >= moment]
    small = 1e-6
    if method == "nearest":
        return None, distance[nearest] <= max_gap + small
    if method == "previous":
        if not earlier:
            return values[0], False
        return values[earlier[-1]], moment - times[earlier[-1]] <= max_gap + small
    if not earlier or not later:
        return values[nearest], False
    a, b = earlier[-1], later[0]
    return np.interp(moment, times, values), times[b] - times[a] <= max_gap + small


@given(times=MOMENTS, clock=MOMENTS, max_gap=st.sampled_from([0.0, 0.1, 0.5, 2.0]), data=st.data())
def test_as_a_slow_loop(times, clock, max_gap, data):
    values = np.array(data.draw(st.lists(st.floats(-9, 9), min_size=len(times), max_size=len(times))))
    for method in ("nearest", "previous", "linear"):
        found, valid = align(times, values[:, None], clock, method, max_gap)
        for t, moment in enumerate(clock):
            value, near = slowly(times, values, moment, method, max_gap)
            assert valid[t] == near, (method, moment)
            if method == "nearest":  # either of two that are as near
                distance = np.abs(times - moment)
                assert found[t, 0] in values[distance <= distance.min() + 1e-9]
            else:
                np.testing.assert_allclose(found[t, 0], value, atol=1e-9)


def test_a_fast_stream_on_a_slow_clock_and_back():
    fast, slow = np.arange(0, 1, 0.01), np.arange(0, 1, 0.05)
    sine = np.sin(fast).astype(np.float32)[:, None]
    on_slow, valid = align(fast, sine, slow, "nearest", 0.005)
    assert valid.all() and on_slow.dtype == np.float32
    np.testing.assert_array_equal(on_slow[:, 0], sine[::5, 0])
    back, valid = align(slow, on_slow, fast, "linear", 0.05)
    assert valid[:96].all() and not valid[96:].any()  # nothing beyond the last sample
    np.testing.assert_allclose(back[:96], sine[:96], atol=0.05**2 / 8 + 1e-6)  # error of linear interpolation


def test_the_past_knows_nothing_of_the_future():
    times, values = np.array([0.0, 0.1, 0.2]), np.array([[0], [1], [2]])
    found, valid = align(times, values, np.array([0.199, 0.2, 0.35]), "previous", 0.1)
    assert found[:, 0].tolist() == [1, 2, 2] and valid.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"times": [0.1, 0.0]}, "times must be finite numbers that increase"),
        ({"times": [0.0, 0.0]}, "increase strictly"),
        ({"times": [0.0, np.nan]}, "finite"),
        ({"clock": [1.0, 1.0]}, "clock must"),
        ({"times": [0.0]}, "2 values for times"),
        ({"max_gap": -1.0}, "max_gap is -1"),
        ({"method": "cubic"}, "nearest, previous or linear"),
        ({"values": [[1], [2]]}, "cannot be interpolated"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    arguments = {"times": [0.0, 1.0], "values": [[1.0], [2.0]], "clock": [0.5], "method": "linear", "max_gap": 1.0}
    arguments = {name: np.array(x) if isinstance(x, list) else x for name, x in (arguments | change).items()}
    with pytest.raises(ValueError, match=words):
        align(**arguments)
