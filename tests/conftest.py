"""Set-up of the suite: programs compile in a moment and once, memory is given back, the longest files come first."""

import ctypes
import gc
import os
import resource
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

# Programs of tests run a few times, so what costs time is their compilation: without optimisation and without the newer
# emitters of fused loops it takes a third to a half of the processor time. Programs with options of their own, those of
# `mjx_policies.compiler`, keep their level of optimisation. Scripts that tests start inherit this.
# YNNPACK: its threads may wait for one another for ever, see `mjx_policies.compiler`.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_experimental_ynn_fusion_type="
os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}".strip()  # of two that differ XLA takes the last
# There is a worker for each core, and the matrices of tests are small: more threads would wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# On a busy machine an example may take long, which says nothing of the code.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

GIB = 2**30
WORKER_GIB = 3  # what a worker may need
FORGET_ABOVE = 1.25 * GIB  # resident at the end of a file
PEAKS = pytest.StashKey[dict[str, int]]()  # memory of the workers, in bytes


def pytest_configure(config):
    """Equal programs are compiled once, also when they come from functions built anew or were forgotten meanwhile.

    Each process has a folder of its own: JAX writes there without a lock. Programs that call back are never kept.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell; scripts would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # this process distributes tests and runs none
    import jax

    folder = tempfile.TemporaryDirectory(prefix="programs-")
    config.add_cleanup(folder.cleanup)
    jax.config.update("jax_compilation_cache_dir", folder.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)


def pytest_xdist_auto_num_workers(config):
    """One worker for each core, as far as the free memory suffices."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, free_memory() // (WORKER_GIB * GIB)))


def free_memory():
    """Bytes that processes may still take; unlimited where the system does not say."""
    path = Path("/proc/meminfo")
    table = dict(line.split(":") for line in path.read_text().splitlines()) if path.exists() else {}
    return int(table["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in table else sys.maxsize


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """At the end of a file the programs that were compiled are forgotten if they have grown large."""
    yield
    if "jax" in sys.modules and resident() > FORGET_ABOVE:
        sys.modules["jax"].clear_caches()
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed


def resident():
    """Bytes of memory that this process holds now; 0 where the system does not say."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * resource.getpagesize() if path.exists() else 0


def peak():
    """Bytes of memory that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def pytest_sessionfinish(session):
    """A worker tells how large it grew."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak"] = peak()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """The process that distributes tests hears of it."""
    if hasattr(node, "workeroutput"):  # a worker that crashed has none
        node.config.stash.setdefault(PEAKS, {})[node.gateway.id] = node.workeroutput["peak"]


def pytest_terminal_summary(terminalreporter, config):
    """Shows the files that took longest and the memory of the workers."""
    seconds = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):  # of a phase of a test
                seconds[report.nodeid.split("::")[0]] += report.duration
    if len(seconds) < 2:
        return
    terminalreporter.section("slowest files")
    for name, spent in seconds.most_common(25):
        terminalreporter.write_line(f"{spent:7.1f} s  {name}")
    peaks = config.stash.get(PEAKS, {"this process": peak()})
    listed = ", ".join(f"{name} {size / GIB:.1f} GiB" for name, size in sorted(peaks.items()))
    terminalreporter.write_line(f"peak memory: {listed}")
