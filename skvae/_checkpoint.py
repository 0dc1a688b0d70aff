"""The state of an interrupted training in a file, which is either whole or the one before it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Checkpoint"]

_FORMAT = "skvae training checkpoint, 1"


class Checkpoint:
    """A file that holds the state of one training, and what it was a training of.

    The file is a NumPy archive, without pickles, of the arrays of the state and of all else as JSON. It is written
    beside its place, flushed to the disk and then put there, so that at any moment it is complete.

    Parameters
    ----------
    path : str or path-like
        The file.
    identity : dict of str to str
        The parameters and the data of the training, in words. A file of another training is an error.
    """

    def __init__(self, path: str | os.PathLike[str], identity: dict[str, str]) -> None:
        self.path = Path(path)
        self.identity = identity

    def load(self) -> dict[str, Any] | None:
        """Return the state in the file, or None if there is no file.

        Raises
        ------
        ValueError
            When the file is damaged, is not a checkpoint, or is that of a training with other parameters or data.
        OSError
            When the file is there and cannot be read.
        """
        try:
            file = open(self.path, "rb")
        except FileNotFoundError:
            return None
        try:
            with file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            content = json.loads(str(arrays["content"]))
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {_FORMAT!r}")
            identity, state = content["identity"], _unpack(content["state"], arrays)
        except Exception as error:  # there is no end to the ways in which a damaged archive fails
            raise ValueError(
                f"{self.path} cannot be read as a checkpoint: {error!r}. It was left as it is. Choose another path, or "
                f"delete the file to start anew."
            ) from error
        changed = [name for name in self.identity if identity.get(name) != self.identity[name]]
        if changed:
            differences = "; ".join(
                f"{name} was {identity.get(name, 'not there')} and is {self.identity[name]}" for name in changed
            )
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
        """
        arrays: dict[str, Any] = {}
        content = {"format": _FORMAT, "identity": self.identity, "state": _pack(state, arrays)}
        part = self.path.with_name(self.path.name + ".part")
        try:
            with open(part, "wb") as file:
                np.savez(file, content=np.array(json.dumps(content)), **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path)
            _sync_folder(self.path.parent)
        except BaseException as error:
            part.unlink(missing_ok=True)
            if not isinstance(error, OSError):
                raise
            raise OSError(
                error.errno,
                f"The checkpoint {self.path} cannot be written: {error.strerror or error}. Whatever it held "
                f"before is still there. Make room, or choose another path",
            ) from error


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
    if isinstance(value, dict):
        return {"dict": {key: _pack(item, arrays) for key, item in value.items()}}
    if isinstance(value, list):
        return {"list": [_pack(item, arrays) for item in value]}
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
