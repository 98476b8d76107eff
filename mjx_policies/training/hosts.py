"""Agreement between the hosts of one run. With a single host all of this is free."""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_first_host() -> bool:
    """Whether this process writes files and talks to people."""
    return jax.process_index() == 0


def any_host(*flags: bool) -> list[bool]:
    """Each flag, raised if any host raised it. All hosts must call this together."""
    if jax.process_count() == 1:
        return list(flags)
    return [bool(flag) for flag in np.any(multihost_utils.process_allgather(np.array(flags)), axis=0)]


def from_first_host(number: int) -> int:
    """The number that the first host has, below 2**31. All hosts must call this together."""
    return number if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(number)))
