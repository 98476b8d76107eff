"""The folder of one run: its configuration, its lock, and where everything else lies.

config.json     what was asked for, and with which versions, on which device
metrics.csv     one row per logged iteration; of a sweep the means over its runs
sweep.csv       the rows of each run of a sweep
curves.png      the same as a picture
tensorboard/    the same for TensorBoard
checkpoints/    the whole training state, see `checkpoints.py`
crash/          the state of a run that met a value that is not finite
run.lock        held by the process that trains
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

from mjx_policies.errors import UserError
from mjx_policies.files import read_json, remove_leftovers, write_json
from mjx_policies.training.checkpoint import remove
from mjx_policies.training.config import CLASS, differences, from_json, to_json
from mjx_policies.training.hosts import is_first_host
from mjx_policies.training.metrics import read_table

C = TypeVar("C")
FORMAT = 1
LIBRARIES = ("mjx-policies", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "mujoco", "mujoco-mjx", "numpy")
DECISIVE = ("python", "jax", "jaxlib", "mujoco")  # versions that decide the bits of a run
ADVICE = "Restore its config.json, use the script and version that wrote it, or choose another folder."


class RunFolderError(UserError):
    """A run folder that cannot be used as asked."""


class RunFolder:
    """A run folder that this process owns until `close`, the end of a `with` block, or its own end.

    On several hosts each opens it, all see the same files, and the first one owns and writes it. A `with` block that
    ends with an error before a new run has logged or saved anything deletes the run again, so that the corrected
    command finds the folder free.

    Attributes:
      path: the folder.
      resumed: whether it held a run already.
      changes: how versions and devices differ from those that a resumed run was made with: `jax 0.10.1, now 0.10.2`.
    """

    def __init__(self, path: Path, lock: int, resumed: bool, changes: Sequence[str] = (), made_folder: bool = False):
        self.path = path
        self.resumed = resumed
        self.changes = tuple(changes)
        self._lock = lock
        self._made_folder = made_folder

    @classmethod
    def start(cls, path: str | Path, config: Any, resume: bool) -> RunFolder:
        """`open` to resume, `create` otherwise: what a script does with its `--run-dir` and `--resume`."""
        return (cls.open if resume else cls.create)(path, config)

    @classmethod
    def create(cls, path: str | Path, config: Any) -> RunFolder:
        """Starts a run in a new or empty folder.

        Args:
          path: the folder; parents are made as needed.
          config: a frozen dataclass that JSON can hold, see `config.py`.

        Raises:
          RunFolderError: the folder holds something, or another process has just taken it.
        """
        path = Path(path)
        kind, version = declared(type(config))
        contents = {"format": FORMAT, "kind": kind, "version": version, "config": _body(config)}
        contents |= {"made_with": provenance()}
        if not is_first_host():
            return cls(path, lock=-1, resumed=False)
        try:
            _check_folder(path)
            made_folder = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            if not (path / "config.json").exists():  # of a run, its lock tells more
                _check_empty(path)
        except OSError as error:
            raise RunFolderError(f"cannot create {str(path)[:200]}: {error.strerror}.") from None
        with _locked(path, also_folder=made_folder) as lock:
            remove_leftovers(path / "config.json")
            _check_empty(path)
            write_json(path / "config.json", contents)
        return cls(path, lock, resumed=False, made_folder=made_folder)

    @classmethod
    def open(cls, path: str | Path, config: Any = None) -> RunFolder:
        """Takes up the run that a folder holds.

        Args:
          path: the folder.
          config: what this process was asked to do. It may differ from the run's own only in `may_change` fields,
            and replaces it; `None` takes the run's own as it is.

        Raises:
          RunFolderError: no run there, another process works on it, or a configuration that differs.
        """
        path = Path(path)
        data = _read(path)
        with _locked(path) if is_first_host() else contextlib.nullcontext(-1) as lock:
            if is_first_host():
                remove_leftovers(path / "config.json")
            if config is not None:
                kind = _kind_of(path, data, [type(config)])
                try:
                    found = differences(_rebuilt(kind, data), config)
                except UserError as error:
                    raise RunFolderError(f"{path} cannot be resumed: {error} {ADVICE}") from None
                if found:
                    raise RunFolderError(
                        f"{path} cannot be resumed with another configuration ({'; '.join(found[:5])}). "
                        "Use the old values, or choose another --run-dir for a new run."
                    )
                if data["config"] != _body(config) and is_first_host():
                    write_json(path / "config.json", {**data, "config": _body(config)})
        return cls(path, lock, resumed=True, changes=_changes(data.get("made_with"), provenance()))

    def config(self, kind: type[C]) -> C:
        """The run's configuration; see `read_config`."""
        return read_config(self.path, kind)

    def close(self) -> None:
        """Releases the lock; a second call does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self._lock >= 0 and not self.resumed and not self._has_begun():
            for path in self.path.iterdir():
                remove(path)
            if self._made_folder:
                self.path.rmdir()
        self.close()

    def _has_begun(self) -> bool:
        table = self.path / "metrics.csv"
        saved = [*self.path.glob("checkpoints/[0-9]*"), *self.path.glob("crash/*")]
        return bool(saved) or (table.exists() and bool(read_table(table)[1]))


def read_config(path: str | Path, *kinds: type[C]) -> C:
    """The configuration of the run in a folder, as the one of some classes that it is, without taking the lock.

    Raises:
      RunFolderError: no run there, or its configuration is none of these.
    """
    data = _read(Path(path))
    kind = _kind_of(Path(path), data, kinds)
    try:
        return _rebuilt(kind, data)
    except UserError as error:
        raise RunFolderError(f"{path} holds a run that this version cannot read: {error} {ADVICE}") from None


def provenance() -> dict[str, Any]:
    """Versions, platform, device and command: what decides the bits of a run besides its configuration."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    devices = jax.devices()
    return {
        "versions": {**versions, "python": platform.python_version()},
        "platform": f"{platform.system()} {platform.machine()}",
        "devices": f"{len(devices)} x {devices[0].platform} {devices[0].device_kind}",
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _changes(before: Any, now: Mapping[str, Any]) -> list[str]:
    """The differences between two results of `provenance` that decide the bits of a run; the first may be anything."""

    def decisive(made_with: Any) -> dict[str, Any]:
        versions = made_with.get("versions") if isinstance(made_with, dict) else None
        if not isinstance(versions, dict):
            return {}
        return {**{name: versions.get(name) for name in DECISIVE}, "devices": made_with.get("devices")}

    was, is_now = decisive(before), decisive(now)
    return [f"{name} {was[name]}, now {is_now[name]}" for name in was if was[name] != is_now[name]]


def declared(kind: type) -> tuple[str, int]:
    """The name and the version under which a folder holds a configuration of this class.

    A class declares them as `KIND` and `VERSION`; by default they are its name and 1. Names of classes may change.
    """
    return getattr(kind, "KIND", kind.__name__), getattr(kind, "VERSION", 1)


def _body(config: Any) -> dict[str, Any]:
    return {name: value for name, value in to_json(config).items() if name != CLASS}


def _rebuilt(kind: type[C], data: Mapping[str, Any]) -> C:
    return from_json(kind, {CLASS: kind.__name__, **data["config"]})


def _kind_of(path: Path, data: Mapping[str, Any], kinds: Sequence[type[C]]) -> type[C]:
    """The one of some classes that a folder holds; the run of another script is refused, by the script's name."""
    name, version = data.get("kind"), data.get("version")
    for kind in kinds:
        if (name, version) == declared(kind):
            return kind
        if name == declared(kind)[0]:
            raise RunFolderError(
                f"{path} was written by another version of this package (configuration {str(version)[:20]} of a {name} "
                f"run, this version reads {declared(kind)[1]}): check out the version that wrote it, or train again."
            )
    made_with = data.get("made_with")
    command = made_with.get("command") if isinstance(made_with, dict) else None
    script = f", {str(command[0])[:80]}" if isinstance(command, list) and command else ""
    raise RunFolderError(f"{path} holds the run of another script{script}: use that one, or choose another folder.")


def _check_folder(path: Path) -> None:
    try:
        found = path.exists() and not path.is_dir()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise RunFolderError(f"cannot use {str(path)[:200]}: {error.strerror}. Choose another --run-dir.") from None
    if found:
        raise RunFolderError(f"{path} is a file, not a folder. Choose another --run-dir.")


def _check_empty(path: Path) -> None:
    """Refuses a folder that holds anything but what an earlier `create` that was killed may have left there."""
    names = {name for name in os.listdir(path) if not (name.startswith(".config.json.") and name.endswith(".tmp"))}
    if "config.json" in names:
        raise RunFolderError(f"{path} already holds a run. Choose another --run-dir or pass --resume.")
    others = sorted(names - {"run.lock"})
    if others:
        raise RunFolderError(f"{path} is not empty (it holds {others[0]}). Choose another --run-dir.")


@contextlib.contextmanager
def _locked(path: Path, also_folder: bool = False) -> Iterator[int]:
    """A lock that outlives the block, unless this fails: then its file goes, and the folder too, if they are new."""
    new = not (path / "run.lock").exists()
    lock = _lock(path)
    try:
        yield lock
    except BaseException:
        with contextlib.suppress(OSError):
            if new:
                (path / "run.lock").unlink()
            if also_folder:
                path.rmdir()
        os.close(lock)
        raise


def _read(path: Path) -> dict[str, Any]:
    _check_folder(path)
    if not (path / "config.json").exists():
        raise RunFolderError(
            f"{path} holds no run (there is no config.json). Check --run-dir, or start without --resume."
        )
    try:
        data = read_json(path / "config.json")
    except UserError as error:
        raise RunFolderError(f"{path} holds no run that can be read: {error} {ADVICE}") from None
    if not isinstance(data, dict) or not isinstance(data.get("config"), dict) or "format" not in data:
        raise RunFolderError(f"{path} holds no run: its config.json was written by another program. {ADVICE}")
    if data["format"] != FORMAT:
        raise RunFolderError(f"{path} has run format {str(data['format'])[:20]}, this version reads {FORMAT}. {ADVICE}")
    return data


def _lock(path: Path) -> int:
    """An open descriptor that holds the lock; the system releases it when the process ends, however it ends."""
    try:
        lock = os.open(path / "run.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise RunFolderError(f"cannot write to {path}: {error.strerror}.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise RunFolderError(
                f"process {holder or '?'} is training in {path}. Wait, or choose another --run-dir."
            ) from None
        raise RunFolderError(
            f"{path} cannot be locked ({error.strerror}). Choose a --run-dir on a local disk."
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
