"""Fingerprints: a short text that differs for different parameters, data or models; and the identity of a fit."""

import dis
import functools
import hashlib
import inspect
import sys
import types
import weakref
from collections.abc import Iterator
from typing import Any

import joblib
import numpy as np
import torch

from skvae._data.rows import as_tensor, blocks, computed_once
from skvae._version import __version__

__all__ = ["Identity", "fingerprint"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), np.generic, np.dtype, torch.dtype, torch.device)

# What is told apart by its name, and by what it does where it is the user's own.
_CODE = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
)

# What torch keeps in a module; weights, buffers and layers are gone through one by one.
_OF_TORCH = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training"}


def fingerprint(value: object) -> str:
    """Return a text that differs for different values: a short value as it prints, else its kind and a digest.

    Raises
    ------
    TypeError
        When something in it cannot be told from another one.
    """
    is_plain = isinstance(value, _PLAIN)
    is_plain = is_plain or (isinstance(value, (tuple, list)) and all(isinstance(item, _PLAIN) for item in value))
    if is_plain and len(repr(value)) <= 200:
        return repr(value)
    digest = hashlib.sha256()
    for part in _parts(value, {}):
        digest.update(part)
    text = f"{value.dtype} array of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
    return f"{text} with sha256 {digest.hexdigest()[:16]}"


def _parts(value: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    """Yield bytes that together say what `value` is; `seen` has what was met before, by identity."""
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r};".encode()
    elif id(value) in seen:
        yield f"number {list(seen).index(id(value))};".encode()
    else:
        seen[id(value)] = value  # kept, so that nothing else gets its identity
        yield f"{type(value).__name__}(".encode()
        yield from _parts_of_kind(value, seen)
        yield b");"


def _parts_of_kind(value: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    """Yield the parts of something that has parts, by its kind."""
    match value:
        case np.ndarray():
            yield from _parts_of_array(value, seen)
        case torch.Tensor():
            yield from _parts_of_tensor(value)
        case torch.nn.Module():
            yield from _parts_of_module(value, seen)
        case _ if isinstance(value, _CODE):
            yield from _parts_of_code(value, seen)
        case types.ModuleType():
            yield value.__name__.encode()
            if not _is_of_a_package(value.__name__):
                yield inspect.getsource(value).encode()
        case set() | frozenset():
            yield from sorted(b"".join(_parts(item, dict(seen))) for item in value)
        case tuple() | list() | dict():
            for item in value.items() if isinstance(value, dict) else value:
                yield from _parts(item, seen)
        case _:
            yield from _parts(_content(value), seen)


def _content(value: Any) -> Any:
    """Return what tells an object from others of its class, and the class."""
    if isinstance(value, torch.Generator):
        return value.get_state().numpy()
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if isinstance(value, types.MethodType):
        return value.__func__, value.__self__
    if isinstance(value, weakref.ReferenceType):
        return value()
    if not _is_of_a_package(type(value).__module__):
        slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ()) if hasattr(value, name)]
        return type(value), getattr(value, "__dict__", {}) | {name: getattr(value, name) for name in slots}
    try:
        return type(value).__qualname__, joblib.hash(value)
    except Exception as error:  # pickling fails in many ways
        if " at 0x" not in repr(value):
            return type(value).__qualname__, repr(value)
        if getattr(value, "__dict__", None):
            return type(value).__qualname__, vars(value)
        raise TypeError(f"a {type(value).__name__}, {value!r:.100}, cannot be told from another one") from error


def _parts_of_array(array: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    yield f"{array.dtype} {array.shape};".encode()
    if array.dtype.hasobject:
        yield from _parts(array.tolist(), seen)
    elif array.ndim == 2 and array.size and array.dtype.kind in "biuf":
        for block in blocks(array):
            yield as_tensor(block).numpy().tobytes()
    else:
        yield array.tobytes()


def _parts_of_tensor(tensor: torch.Tensor) -> Iterator[bytes]:
    yield f"{tensor.dtype} {tensor.layout} {tensor.requires_grad};".encode()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if not torch.nn.parameter.is_lazy(tensor):
        yield f"{tuple(tensor.shape)};".encode()
        yield tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


def _parts_of_module(module: torch.nn.Module, seen: dict[int, Any]) -> Iterator[bytes]:
    """Yield what a module computes with: its class, its weights and buffers, its layers, and all other attributes."""
    yield from _parts(type(module), seen)
    # The caches of this library's networks say nothing.
    of_library = type(module).__module__.split(".")[0] == "skvae" and hasattr(module, "config")
    attributes: dict[str, Any] = {"config": module.config} if of_library else vars(module)
    for name, value in attributes.items():
        is_empty = isinstance(value, dict) and not value
        # Hooks into saving and loading compute nothing.
        if name not in _OF_TORCH and "state_dict" not in name and not is_empty:
            # torch numbers hooks as they come.
            is_hooks = name.startswith("_") and "hooks" in name and isinstance(value, dict)
            yield from _parts((name, list(value.values()) if is_hooks else value), seen)
    for kind in ("_parameters", "_buffers", "_modules"):
        yield from _parts(dict(vars(module)[kind]), seen)
    if type(module).get_extra_state is not torch.nn.Module.get_extra_state:
        yield from _parts(module.get_extra_state(), seen)


def _parts_of_code(code: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    """Yield the name of a function or a class, and of the user's own what it does and whatever that refers to."""
    yield f"{getattr(code, '__module__', None)}.{code.__qualname__};".encode()
    # What exec has made says that it belongs to builtins too.
    is_heap_type = isinstance(code, type) and bool(code.__flags__ & 1 << 9)
    is_python = is_heap_type or isinstance(code, types.FunctionType)
    if not is_python or (code.__module__ != "builtins" and _is_of_a_package(code.__module__)):
        return
    if isinstance(code, type):
        yield from _parts(code.__bases__, seen)
        for name, member in vars(code).items():
            for wrapped in ("fget", "func", "__func__"):
                member = getattr(member, wrapped, member)
            # Python keeps notes of its own in a class under such names.
            is_note = (name.startswith("__") and not isinstance(member, types.FunctionType)) or name == "_abc_impl"
            if not is_note and not inspect.isdatadescriptor(member):
                yield from _parts((name, member), seen)
    else:
        yield from _parts_of_bytecode(code.__code__, seen)
        yield from _parts((code.__defaults__, code.__kwdefaults__), seen)
        for cell in code.__closure__ or ():
            yield from _parts(_cell_contents(cell), seen)
        for name, value in _globals_of(code.__code__, code.__globals__):
            yield from _parts((name, value), seen)


def _is_of_a_package(module_name: Any) -> bool:
    """Return whether what a module defines is Python's own, or that of an installed package."""
    top = str(module_name).split(".")[0]
    path = getattr(sys.modules.get(top), "__file__", None) or ""
    return top in sys.stdlib_module_names or top == "skvae" or "site-packages" in path or "dist-packages" in path


def _cell_contents(cell: types.CellType) -> Any:
    """Return what a closure refers to, or nothing where that is not there yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _parts_of_bytecode(code: types.CodeType, seen: dict[int, Any]) -> Iterator[bytes]:
    """Yield what a code object does, and nothing of where it stands."""
    yield code.co_code
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)).encode()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _parts_of_bytecode(constant, seen)
        else:
            yield from _parts(constant, seen)


def _globals_of(code: types.CodeType, namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the names that a code object, and those within it, look up or import, and what they stand for."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and instruction.argval in namespace:
            yield instruction.argval, namespace[instruction.argval]
        elif instruction.opname == "IMPORT_NAME":
            yield instruction.argval, sys.modules.get(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_of(constant, namespace)


def _named_fingerprint(name: str, value: Any) -> str:
    """Return the fingerprint of a parameter, or raise an error that names it."""
    try:
        return fingerprint(value)
    except Exception as error:  # whatever an object of the user's own does when it is looked at
        raise ValueError(
            f"{name} cannot be compared with what it was in an earlier fit or in another process: {error}. Keep such a "
            f"thing out of the attributes of your module, or fit without checkpoint and in one process."
        ) from error


class Identity:
    """The identity of a fit: its parameters, its data and its starting point. It is computed on first use.

    Parameters
    ----------
    estimator : BaseEstimator
        The estimator.
    method : {"fit", "partial_fit"}
        What was called.
    X, X_val : ndarray or None
        The data.
    device : torch.device
        Where the fit computes.
    goes_on : bool
        Whether it starts from the fitted model.
    """

    def __init__(self, estimator: Any, method: str, X: Any, X_val: Any, device: torch.device, *, goes_on: bool) -> None:
        self._estimator, self._method, self._data, self._device = estimator, method, {"X": X, "X_val": X_val}, device
        self._goes_on = goes_on

    @computed_once
    def of_training(self) -> dict[str, str]:
        """What the result of the training depends on, in words."""
        estimator = self._estimator
        parameters = estimator.get_params(deep=False)
        for name in ("checkpoint", "device", "verbose"):
            del parameters[name]
        identity = {"skvae": __version__, "estimator": f"{type(estimator).__module__}.{type(estimator).__qualname__}"}
        parts = {
            "code of the estimator": type(estimator),
            "likelihood": estimator.make_likelihood(self._data["X"].shape[1]),
        }
        parts |= parameters | self._data
        identity |= {name: _named_fingerprint(name, value) for name, value in parts.items()}
        identity["device"] = self._device.type
        if self._goes_on:
            start = {name: getattr(estimator, name) for name in ("module_", "loss_curve_", "history_")}
            identity |= {f"{name} before": fingerprint(value) for name, value in start.items()}
        return identity

    @property
    def of_process(self) -> dict[str, str]:
        """What has to be the same in all processes of a fit, in words."""
        estimator = self._estimator
        state = getattr(estimator, "_continuation", None) if self._method == "partial_fit" else None
        n_steps = max((int(steps) for steps, *_ in state["optimizer"].values()), default=0) if state else 0
        return self.of_training | {
            "the method": self._method,
            "the steps of the optimizer": str(n_steps),
            "checkpoint": "None" if estimator.checkpoint is None else "given",
            "feature names": fingerprint(list(getattr(estimator, "feature_names_in_", ()))),
        }
