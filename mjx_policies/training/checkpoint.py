"""One checkpoint: a folder that holds a pytree, written in one step and verified before it is read.

    manifest.json   kind of every leaf, length and SHA-256 of every file, metadata, and the SHA-256 of all that
    arrays/         the leaves under their names, written by Orbax; leaves without elements need no file

There is no pickle in it. The folder is written under another name, flushed to the disk and then renamed, so a folder
with its proper name is complete even after a loss of power, as far as the disk keeps its promises.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib.metadata
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mjx_policies.errors import UserError, disk_is_full
from mjx_policies.files import canonical_json, flush_to_disk, flush_tree_to_disk, read_json, write_json
from mjx_policies.training.hosts import is_first_host
from mjx_policies.training.trees import PyTree, describe, from_host, is_key, leaf_names, mismatches, to_host

FORMAT = 1
TEMPORARY = ".saving-"  # how the name of an unfinished checkpoint begins
DEFAULT_MAX_BYTES = 64 << 30
MANIFEST_MAX_BYTES = 64 << 20


class CheckpointError(UserError):
    """A checkpoint that cannot be written, is not intact, or belongs to something else."""


class CheckpointMismatchError(CheckpointError):
    """An intact checkpoint of something else than what is being restored."""


def write_checkpoint(path: Path, tree: PyTree, meta: Mapping[str, Any] | None = None) -> None:
    """Writes a pytree; whatever was at `path` is replaced in the end, and is still there after a failure.

    On several hosts all must call this, and the first one writes.

    Args:
      path: folder of the checkpoint; its parent is made as needed.
      tree: arrays, typed PRNG keys, Python bools, ints and floats in any pytree.
      meta: JSON data to keep beside it.

    Raises:
      CheckpointError: the disk is full or cannot be written; no unfinished files stay behind.
    """
    path = Path(path)
    kinds, arrays = describe(tree), to_host(tree)
    if not is_first_host():
        return
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    replaced = path.with_name(f"{TEMPORARY}{path.name}-replaced")
    try:
        remove(temporary)
        temporary.mkdir(parents=True)
        stored = {name: array for name, array in arrays.items() if array.size}
        if stored:
            _write_arrays(temporary / "arrays", stored)
        manifest = {
            "format": FORMAT,
            "leaves": kinds,
            "files": {name: _fingerprint(temporary / name) for name in _files(temporary)},
            "meta": dict(meta or {}),
            "versions": {name: importlib.metadata.version(name) for name in ("jax", "orbax-checkpoint", "numpy")},
        }
        write_json(temporary / "manifest.json", {**manifest, "sha256": _digest(manifest)})
        flush_tree_to_disk(temporary)
        if os.path.lexists(path):
            remove(replaced)
            path.rename(replaced)
        temporary.rename(path)
        flush_to_disk(path.parent)
    except Exception as error:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        reason = "the disk is full, make room" if disk_is_full(error) else " ".join(str(error).split())[:300]
        raise CheckpointError(f"checkpoint {path} was not saved: {reason}.") from error
    finally:
        remove(temporary)
        if os.path.lexists(path):
            remove(replaced)


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Lets Orbax write, elsewhere if need be: it finds its own files by a pattern, in which brackets have a meaning."""
    path = path.absolute()
    with contextlib.ExitStack() as stack:
        plain = path
        if glob.escape(str(path)) != str(path):
            plain = Path(stack.enter_context(tempfile.TemporaryDirectory())) / path.name
        stack.enter_context(_orbax()).save(plain, args=ocp.args.PyTreeSave(dict(arrays)))
        if plain != path:
            shutil.move(plain, path)


def read_checkpoint(
    path: Path, template: PyTree, at: str = "", max_bytes: int = DEFAULT_MAX_BYTES
) -> tuple[PyTree, dict[str, Any]]:
    """Reads a pytree that has the structure, shapes, dtypes and shardings of `template`.

    Args:
      path: folder of the checkpoint.
      template: a tree of arrays or of `jax.ShapeDtypeStruct`, whose values do not matter.
      at: where the template sits in the tree that was saved, such as `learner.params`; everything by default.
      max_bytes: larger checkpoints are refused.

    Returns:
      The tree and the metadata.

    Raises:
      CheckpointError: not a checkpoint, damaged, holding links, too large, or of another structure.
    """
    path = Path(path)
    manifest = verify_checkpoint(path, max_bytes)
    prefix = f"{at}." if at else ""
    expected = {prefix + name: kind for name, kind in describe(template).items()}
    found = mismatches(expected, {name: kind for name, kind in manifest["leaves"].items() if name.startswith(prefix)})
    if found:
        more = f"; {len(found) - 1} more differ" if len(found) > 1 else ""
        raise CheckpointMismatchError(
            f"checkpoint {path} was made with another configuration or version ({found[0]}{more}). "
            "Use those, put the run's own checkpoint in its place, or start a new run in another folder."
        )
    names, leaves = leaf_names(template), jax.tree.leaves(template)
    arrays = _read_arrays(path, {prefix + n: _host_shape(leaf) for n, leaf in zip(names, leaves, strict=True)})
    return from_host(template, {name.removeprefix(prefix): array for name, array in arrays.items()}), manifest["meta"]


def verify_checkpoint(path: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> dict[str, Any]:
    """The manifest of a checkpoint whose every byte is as written; see `read_checkpoint` for arguments and errors."""
    path = Path(path)
    if path.is_symlink() or not path.is_dir():
        raise CheckpointError(f"{path} is no checkpoint: it is not a folder.")
    files = _files(path)  # refuses links before anything is opened
    if not files:
        raise CheckpointError(f"{path} is no checkpoint: the folder is empty.")
    total = sum(files.values())
    if total > max_bytes:
        raise CheckpointError(f"checkpoint {path} has {total} bytes, more than the {max_bytes} allowed.")
    if "manifest.json" not in files:
        raise CheckpointError(f"{path} is no checkpoint of this library: it has no manifest.json.")
    try:
        manifest = read_json(path / "manifest.json", MANIFEST_MAX_BYTES)
    except UserError as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {error}") from None
    if not isinstance(manifest, dict) or "sha256" not in manifest or "format" not in manifest:
        raise CheckpointError(f"{path} is no checkpoint of this library: its manifest.json is foreign.")
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {str(manifest['format'])[:20]}, this version reads {FORMAT}."
        )
    if manifest.pop("sha256") != _digest(manifest) or not _is_well_formed(manifest):
        raise CheckpointError(f"checkpoint {path} is damaged: manifest.json was altered.")
    _check_files(path, manifest["files"], set(files) - {"manifest.json"})
    return manifest


def remove(path: Path) -> None:
    """Deletes a folder, a file or a link, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_well_formed(manifest: Mapping[str, Any]) -> bool:
    tables = [manifest.get(name) for name in ("leaves", "files")]
    texts = all(isinstance(table, dict) and all(isinstance(v, str) for v in table.values()) for table in tables)
    return texts and isinstance(manifest.get("meta"), dict)


def _check_files(path: Path, expected: Mapping[str, str], found: set[str]) -> None:
    missing, foreign = sorted(set(expected) - found), sorted(found - set(expected))
    if missing:
        raise CheckpointError(f"checkpoint {path} is damaged: {missing[0]} is missing.")
    if foreign:
        raise CheckpointError(f"checkpoint {path} is damaged: {foreign[0]} does not belong to it.")
    for name in sorted(expected):
        if _fingerprint(path / name) != expected[name]:
            raise CheckpointError(f"checkpoint {path} is damaged: {name} was truncated or altered.")


def _read_arrays(path: Path, shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, np.ndarray]:
    arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items() if 0 in shape}
    stored = {name: shape for name, shape in shapes.items() if name not in arrays}
    if not stored:
        return arrays
    folder = (path / "arrays").absolute()
    try:
        with _orbax() as orbax:
            # Before anything is read: how large are the arrays really?
            claims = {name: tuple(leaf.shape) for name, leaf in orbax.metadata(folder).item_metadata.tree.items()}
            wrong = [name for name, (shape, _) in stored.items() if claims.get(name) != shape]
            if wrong:
                raise ValueError(f"{wrong[0]} has shape {claims.get(wrong[0])}, unlike its manifest")
            arguments = ocp.args.PyTreeRestore(
                item={name: 0 for name in stored},
                restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in stored},
                partial_restore=True,
            )
            read = orbax.restore(folder, args=arguments)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"checkpoint {path} cannot be read: {reason}.") from error
    for name, (shape, dtype) in stored.items():
        if read[name].shape != shape or read[name].dtype != dtype:
            raise CheckpointError(f"checkpoint {path} is damaged: {name} is not what its manifest says.")
    return {**arrays, **read}


def _host_shape(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype that `to_host` gives a leaf."""
    if isinstance(leaf, bool | int | float):
        return (), np.asarray(leaf).dtype
    if is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        return data.shape, np.dtype(data.dtype)
    return tuple(leaf.shape), np.dtype(leaf.dtype)


@contextlib.contextmanager
def _orbax() -> Iterator[ocp.Checkpointer]:
    # Incompressible floats gain nothing from compression. Orbax is not to wait for other hosts: one writes, each reads.
    here = jax.process_index()
    options = ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
    handler = ocp.PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=options)
    logger = logging.getLogger("absl")
    logger.addFilter(_tells_more)
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=options) as orbax:
            yield orbax
    finally:
        logger.removeFilter(_tells_more)


def _tells_more(record: logging.LogRecord) -> bool:
    """False for the traceback of an error that a thread of Orbax met: it is raised as well, and becomes a sentence."""
    return not (record.exc_info and "orbax" in record.pathname)


def _files(folder: Path) -> dict[str, int]:
    """Length of every file below a folder under its relative path; refuses what is neither file nor folder."""
    found = {path: path.lstat() for path in folder.rglob("*")}  # which does not follow links
    for path, status in found.items():
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise CheckpointError(f"checkpoint {folder} is refused: {path.name} is a link or no plain file.")
    files = {path: status.st_size for path, status in found.items() if stat.S_ISREG(status.st_mode)}
    return {path.relative_to(folder).as_posix(): size for path, size in files.items()}


def _fingerprint(path: Path) -> str:
    """Length and SHA-256 of a file."""
    with open(path, "rb") as file:
        return f"{os.fstat(file.fileno()).st_size} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(manifest).encode()).hexdigest()
