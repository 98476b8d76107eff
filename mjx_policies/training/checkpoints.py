"""The checkpoints of one run: the newest few, perhaps the best, and the way back from a damaged one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mjx_policies.files import read_json
from mjx_policies.training.checkpoint import (
    DEFAULT_MAX_BYTES,
    MANIFEST_MAX_BYTES,
    TEMPORARY,
    CheckpointError,
    CheckpointMismatchError,
    PyTree,
    read_checkpoint,
    remove,
    write_checkpoint,
)
from mjx_policies.training.hosts import from_first_host, is_first_host

T = TypeVar("T")
DAMAGED = ".damaged"  # how the name of a checkpoint that was passed over ends


class Restored(NamedTuple):
    """The result of `Checkpoints.restore`: the step, the state saved then, and the metadata beside it."""

    step: int
    state: PyTree
    meta: dict[str, Any]


class Checkpoints:
    """A folder of checkpoints named by step.

    Whoever makes one must hold the run's lock. On several hosts each makes one, calls `save` and `restore` together
    with the others, and sees the same folder; the first one writes.

    Args:
      folder: made as needed; what an interrupted save left there is removed.
      keep: how many of the newest stay. The one with the highest score stays as well.
      max_bytes: larger checkpoints are not restored.
    """

    def __init__(self, folder: Path, keep: int = 2, max_bytes: int = DEFAULT_MAX_BYTES):
        if keep < 1:
            raise ValueError(f"keep is {keep}, at least one checkpoint must stay")
        self.folder = Path(folder)
        self.keep = keep
        self.max_bytes = max_bytes
        if not is_first_host():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(f"{TEMPORARY}*"):
            original = self.folder / path.name.removeprefix(TEMPORARY).removesuffix("-replaced")
            if path.name.endswith("-replaced") and not original.exists():
                path.rename(original)  # killed between two renames
            else:
                remove(path)

    def save(self, step: int, state: PyTree, meta: Mapping[str, Any] | None = None, score: float | None = None) -> None:
        """Writes a checkpoint, then deletes those no longer wanted; see `write_checkpoint` for errors.

        Args:
          step: its name, not negative.
          state: see `write_checkpoint`.
          meta: JSON data to keep beside it.
          score: the checkpoint with the highest one is kept.
        """
        meta = {"step": step, "score": score, "user": dict(meta or {})}
        try:
            write_checkpoint(self.folder / f"{step:012d}", state, meta)
        except CheckpointError as error:
            steps = checkpoint_steps(self.folder)
            advice = "from the start: nothing was saved before"
            if steps:
                advice = f"with --resume and the same --run-dir: the run goes on from step {steps[-1]}"
            raise CheckpointError(f"{error} Run again {advice}.") from error
        if is_first_host():
            self._prune()

    def restore(self, template: PyTree, say: Callable[[str], None] = print) -> Restored | None:
        """Reads the newest intact checkpoint; `None` if there is none at all.

        Damaged ones are set aside under another name, with a line to `say`.

        Raises:
          CheckpointError: all are damaged, or the newest intact one is of another structure.
        """
        restored = None
        if is_first_host() and checkpoint_steps(self.folder):
            restored = newest_intact(self.folder, lambda path: self._read(int(path.name), template), say)
            self._set_aside(restored.step)
        step = from_first_host(-1 if restored is None else restored.step)
        return self._read(step, template) if step >= 0 and restored is None else restored

    def _read(self, step: int, template: PyTree) -> Restored:
        path = self.folder / f"{step:012d}"
        state, meta = read_checkpoint(path, template, max_bytes=self.max_bytes)
        if not isinstance(meta.get("user"), dict) or meta.get("step") != step:
            raise CheckpointError(f"checkpoint {path} is damaged: it was not written for this place.")
        return Restored(step, state, meta["user"])

    def _set_aside(self, newest_intact: int) -> None:
        for step in checkpoint_steps(self.folder):
            if step > newest_intact:
                path = self.folder / f"{step:012d}"
                aside = path.with_name(path.name + DAMAGED)
                remove(aside)
                path.rename(aside)

    def _prune(self) -> None:
        steps = checkpoint_steps(self.folder)
        best = max(steps, key=lambda step: (_score(self.folder, step), step))  # the newest if none has a score
        kept = {*steps[-self.keep :], best}
        for step in set(steps) - kept:
            unwanted = self.folder / f"{TEMPORARY}{step:012d}"
            remove(unwanted)
            (self.folder / f"{step:012d}").rename(unwanted)  # half deleted it would pass for a damaged one
            remove(unwanted)


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, ascending."""
    return sorted(int(path.name) for path in Path(folder).glob("[0-9]*") if path.name.isdecimal())


def newest_intact(folder: Path, read: Callable[[Path], T], say: Callable[[str], None] = print, best: bool = False) -> T:
    """The result of `read` for the newest checkpoint that is intact.

    Args:
      folder: of the checkpoints; it is left as it is.
      read: such as `read_checkpoint`; its `CheckpointError` says that a checkpoint is damaged.
      say: told of each one that is passed over.
      best: those with the highest score come first, and the newest only among equals.

    Raises:
      CheckpointError: there is none, all are damaged, or the newest intact one is of another structure.
    """
    newest_checkpoint(folder)
    damaged: list[CheckpointError] = []
    steps = checkpoint_steps(folder)
    if best:
        steps.sort(key=lambda step: (_score(folder, step), step))
    for step in reversed(steps):
        try:
            found = read(Path(folder) / f"{step:012d}")
        except CheckpointMismatchError:
            raise
        except CheckpointError as error:
            damaged.append(error)
            continue
        for damage in damaged:
            say(f"{damage} Going back to step {step}.")
        return found
    raise CheckpointError(f"{damaged[0]} No intact one is left: start a new run.")


def _score(folder: Path, step: int) -> float:
    """The score of a checkpoint; minus infinity if it has none."""
    try:
        score = read_json(Path(folder) / f"{step:012d}" / "manifest.json", MANIFEST_MAX_BYTES)["meta"]["score"]
    except (ValueError, KeyError, TypeError):
        score = None
    return score if isinstance(score, int | float) and math.isfinite(score) else -math.inf


def newest_checkpoint(folder: Path) -> Path:
    """The newest complete checkpoint in a folder, for those who only read; `CheckpointError` if there is none."""
    steps = checkpoint_steps(folder)
    if not steps:
        raise CheckpointError(f"{folder} holds no checkpoint. Train for a while first, or check the path.")
    return Path(folder) / f"{steps[-1]:012d}"
