"""Streams of different rates on one clock. Times are in seconds. Axes: N samples of a stream, T steps of the clock."""

from __future__ import annotations

from typing import Literal

import numpy as np

Method = Literal["nearest", "previous", "linear"]


def align(
    times: np.ndarray, values: np.ndarray, clock: np.ndarray, method: Method, max_gap: float
) -> tuple[np.ndarray, np.ndarray]:  # [N], [N, ...], [T] -> [T, ...], [T]
    """The values of a stream at each step of a clock.

    Args:
      times: increasing strictly.
      values: of the stream. `linear` needs floating-point numbers, and is wrong for quaternions and angles that wrap.
      clock: increasing strictly.
      method: `previous` is what a controller would have known; `nearest` and `linear` use the future, right for
        what is measured and wrong for what a policy is to see before it acts.
      max_gap: s, for `previous` and `nearest` how far a sample may be from the step, for `linear` how far apart the two
        samples around it. A hair's breadth more is allowed, for rounding.

    Returns:
      Values, and for each step whether there was one near enough; where not, the value is that of the nearest sample.

    Raises:
      ValueError: times do not increase, or shapes or types do not fit.

    Example:
      >>> align(np.array([0.0, 0.1]), np.array([[0.0], [1.0]]), np.array([0.05, 0.1, 0.4]), "linear", 0.1)
      (array([[0.5],
             [1. ],
             [1. ]]), array([ True,  True, False]))
    """
    times, values, clock = np.asarray(times, np.float64), np.asarray(values), np.asarray(clock, np.float64)
    if times.ndim != 1 or not len(times) or len(values) != len(times):
        raise ValueError(f"there are {len(values)} values for times of the shape {list(times.shape)}, they must agree")
    for name, given in (("times", times), ("clock", clock)):
        if given.ndim != 1 or not np.isfinite(given).all() or not (np.diff(given) > 0).all():
            raise ValueError(f"{name} must be finite numbers that increase strictly: sort them, leave out doubles")
    if not max_gap >= 0:
        raise ValueError(f"max_gap is {max_gap}, it must not be negative")
    allowed = max_gap + 1e-9 * max(1.0, abs(float(times[-1])), abs(float(clock[-1])) if len(clock) else 0.0)

    after = np.searchsorted(times, clock, side="right")  # first sample later than the step
    left, right = np.clip(after - 1, 0, None), np.clip(after, None, len(times) - 1)
    nearest = np.where(clock - times[left] <= times[right] - clock, left, right)
    nearest = np.where(after == 0, 0, np.where(after == len(times), len(times) - 1, nearest))
    if method == "nearest":
        return values[nearest], np.abs(clock - times[nearest]) <= allowed
    if method == "previous":
        return values[left], (after > 0) & (clock - times[left] <= allowed)
    if method != "linear":
        raise ValueError(f"method is {method!r}, it must be nearest, previous or linear")
    if values.dtype.kind != "f":
        raise ValueError(f"{values.dtype} cannot be interpolated: use nearest or previous")
    exact = times[left] == clock
    right = np.where(exact, left, right)
    span = times[right] - times[left]
    share = np.where(span > 0, (clock - times[left]) / np.where(span > 0, span, 1.0), 0.0)
    share = share.reshape(-1, *(1,) * (values.ndim - 1)).astype(values.dtype)
    mixed = (1 - share) * values[left] + share * values[right]
    between = exact | ((after > 0) & (after < len(times)) & (span <= allowed))
    beside = (after == 0) | ((after == len(times)) & ~exact)
    return np.where(beside.reshape(share.shape), values[nearest], mixed), between
