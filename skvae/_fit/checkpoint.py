"""The state of an interrupted training in a file, which is either whole or the one before it."""

import contextlib
import glob
import json
import os
import stat
import time
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Checkpoint", "unreadable_error"]

_FORMAT = "skvae training checkpoint, 3"


def unreadable_error(path: str | os.PathLike[str], error: Exception) -> ValueError:
    """Return the error that the file at `path` is no checkpoint that can be read, because of `error`."""
    return ValueError(
        f"{os.fspath(path)} cannot be read as a checkpoint: {error!r}. It was left as it is. Choose another path, or "
        f"delete the file to start anew."
    )


class Checkpoint:
    """A file that holds the state of one training, and what it was a training of.

    The file is a NumPy archive, without pickles, of the arrays of the state and of all else as JSON. It is written
    beside its place, under a name that no other writer has, flushed to the disk and then put there, so that at any
    moment it is complete. What a process that was killed while writing has left beside it is removed an hour later.

    Parameters
    ----------
    path : str or path-like
        The file, or a link to where it is to be.
    identity : dict of str to str
        The parameters and the data of the training, in words. A file of another training is an error.
    """

    def __init__(self, path: str | os.PathLike[str], identity: dict[str, str]) -> None:
        try:
            self.path = Path(path).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"checkpoint={os.fspath(path)!r} is not a path: {error}.") from error
        if self.path.is_dir():
            raise ValueError(f"checkpoint={os.fspath(path)!r} is a folder; a path of a file is expected.")
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"checkpoint={os.fspath(path)!r} is a device or a pipe; a path of a file is expected.")
        self.identity = identity
        self._parts = f".{self.path.name}.skvae-part-"

    def load(self) -> dict[str, Any] | None:
        """Return the state in the file, or None if there is no file.

        Raises
        ------
        ValueError
            When the file is damaged, is not a checkpoint, or is that of a training with other parameters or data.
        OSError
            When the file is there and cannot be read.
        """
        self._remove_old_parts()
        try:
            file = open(self.path, "rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OSError(error.errno, f"The checkpoint {self.path} cannot be read: {error.strerror}") from error
        try:
            with file:
                with zipfile.ZipFile(file) as archive:
                    damaged = archive.testzip()
                if damaged is not None:
                    raise ValueError(f"{damaged} in it is damaged")
                file.seek(0)
                with np.load(file, allow_pickle=False) as stored:
                    arrays = {name: stored[name] for name in stored.files}
            content = json.loads(arrays["content"].tobytes())
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {_FORMAT!r}")
            identity, state = content["identity"], _unpack(content["state"], arrays)
        except Exception as error:  # there is no end to the ways in which a damaged archive fails
            raise unreadable_error(self.path, error) from error
        was, now = (
            {name: who.get(name, "not there") for name in {**identity, **self.identity}}
            for who in (identity, self.identity)
        )
        changed = [name for name in was if was[name] != now[name]]
        if changed:
            differences = "; ".join(f"{name} was {was[name]} and is {now[name]}" for name in changed)
            raise ValueError(
                f"The checkpoint {self.path} is that of another training: {differences}. It was left as it is. Put "
                f"back what has changed, choose another path, or delete the file to start anew."
            )
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Put `state` in the place of what the file holds.

        Parameters
        ----------
        state : dict
            Nested dicts and lists of arrays, numbers, strings, booleans and None; keys are strings.

        Raises
        ------
        OSError
            When it cannot be written; the file is as it was.
        TypeError
            When the state holds anything else, as that of a module of the user's own may.
        """
        arrays: dict[str, Any] = {}
        content = json.dumps({"format": _FORMAT, "identity": self.identity, "state": _pack(state, arrays)})
        part = self.path.with_name(self._parts + uuid.uuid4().hex)
        try:
            with open(part, "xb", opener=self._create) as file:
                np.savez(file, content=np.frombuffer(content.encode(), np.uint8), **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path)
            _sync_folder(self.path.parent)
        except BaseException as error:
            with contextlib.suppress(OSError):
                part.unlink()
            if not isinstance(error, OSError):
                raise
            raise OSError(
                error.errno,
                f"The checkpoint {self.path} cannot be written: {error.strerror or error}. Whatever it held "
                f"before is still there. Make room, or choose another path",
            ) from error

    def _create(self, path: str, flags: int) -> int:
        """Open a file that only those may read who may read the one that it takes the place of."""
        try:
            mode = stat.S_IMODE(self.path.stat().st_mode)
        except FileNotFoundError:
            return os.open(path, flags, 0o666)
        descriptor = os.open(path, flags, 0o600)
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, mode)
        return descriptor

    def _remove_old_parts(self) -> None:
        """Remove what killed processes have left: nobody takes an hour to write one."""
        for part in self.path.parent.glob(f"{glob.escape(self._parts)}*"):
            try:
                if time.time() - part.stat().st_mtime > 3600:
                    part.unlink()
            except OSError:  # it is gone, or somebody else's
                continue


def _sync_folder(folder: Path) -> None:
    """See to it that the folder knows of the file even after a power cut, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _pack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return `value` with each array replaced by its name in `arrays`, where it goes."""
    if isinstance(value, np.ndarray):
        name = f"array{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _pack(item, arrays) for key, item in value.items()}}
    if isinstance(value, list):
        return {"list": [_pack(item, arrays) for item in value]}
    value = value.item() if isinstance(value, np.generic) else value
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise TypeError(
            f"The state of training holds a {type(value).__name__}, {value!r:.100}; a checkpoint takes arrays, "
            f"numbers, strings, None, and lists and dicts of them whose keys are strings. Fit without checkpoint, or "
            f"keep such a thing out of the state of your module."
        )
    return {"plain": value}


def _unpack(packed: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    """Undo `_pack`."""
    ((kind, value),) = packed.items()
    if kind == "array":
        return arrays[value]
    if kind == "dict":
        return {key: _unpack(item, arrays) for key, item in value.items()}
    if kind == "list":
        return [_unpack(item, arrays) for item in value]
    return value
