"""Several processes that fit one model together: each takes its part of the rows of every minibatch.

All of them call `fit` with the same data and parameters. Before they exchange anything they make sure that none has
failed, so that an error in one is an error in all, and nobody waits for a process that will not come.
"""

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Group", "PeerError", "ShardedGenerator", "current_group", "draw_rows", "together"]

T = TypeVar("T")

# Held by the thread that is in a shared fit.
_turn = threading.RLock()

# Whether Ctrl-C waits for the other processes to hear of it.
_interrupted = threading.Event()

# The group that a forked process has from its parent, and cannot talk to.
_inherited: Any = None


def _note_inherited() -> None:
    global _inherited
    _inherited = dist.group.WORLD if dist.is_available() and dist.is_initialized() else None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_inherited)


class PeerError(RuntimeError):
    """Another process of the group has failed."""


class ShardedGenerator(torch.Generator):
    """A generator for a process that has part of the rows of a minibatch; see `draw_rows`.

    Attributes
    ----------
    start : int
        The first of the process's rows.
    n_rows : int
        How many rows the whole minibatch has.
    """

    start = 0
    n_rows = 0


def draw_rows(draw: Callable[[torch.Size], Tensor], shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return ``draw(shape)``, a draw from `generator` with a row for each row of a minibatch.

    With a `ShardedGenerator` the rows of the whole minibatch are drawn, so that all processes draw the same, and those
    of this process are returned.
    """
    if not isinstance(generator, ShardedGenerator):
        return draw(shape)
    drawn = draw(torch.Size((generator.n_rows, *shape[1:])))
    return drawn[generator.start : generator.start + shape[0]]


class Group:
    """The processes that `torch.distributed` was initialised with.

    Attributes
    ----------
    rank : int
        The number of this process.
    size : int
        The number of processes.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        on_cuda = dist.get_backend() == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")

    def part(self, n_rows: int) -> tuple[int, int]:
        """Return the first of the rows of this process, and the one after its last, out of `n_rows`."""
        return self.rank * n_rows // self.size, (self.rank + 1) * n_rows // self.size

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over the processes, the same bits in all."""
        self.check()
        total = values.to(self._device)
        self._exchange(dist.all_reduce, total)
        return total.to(values.device)

    def any(self, condition: bool) -> bool:
        """Return whether `condition` is true in any process."""
        return bool(self.sum(torch.tensor(float(condition))) > 0)

    def broadcast(self, value: T) -> T:
        """Return what the first process has for `value`."""
        self.check()
        values = [value]
        self._exchange(dist.broadcast_object_list, values, src=0)
        return values[0]

    def check_same(self, identity: dict[str, str]) -> None:
        """Raise ValueError unless all processes have the same entries, such as parameters and data."""
        self.check()
        identities: list[Any] = [None] * self.size
        self._exchange(dist.all_gather_object, identities, identity)
        for rank, other in enumerate(identities):
            for name in {**identities[0], **other}:
                first, its = (who.get(name, "not there") for who in (identities[0], other))
                if first != its:
                    raise ValueError(
                        f"All processes of the group have to fit the same: {name} is {first} in rank 0 and {its} in "
                        f"rank {rank}. Give all ranks the same data and parameters, modules with the same weights; "
                        f"each takes its part of every minibatch by itself."
                    )

    def check(self, error: BaseException | None = None) -> None:
        """Tell the others of `error`, of Ctrl-C or of neither; without `error`, raise PeerError if any has failed."""
        report = None if error is None else f"{type(error).__name__}: {error}"
        if error is None and _interrupted.is_set():
            report = "KeyboardInterrupt"
        failed = torch.tensor([report is not None], dtype=torch.int32, device=self._device)
        self._exchange(dist.all_reduce, failed)
        if not failed:
            return
        reports: list[Any] = [None] * self.size
        self._exchange(dist.all_gather_object, reports, report)
        if error is None:
            failures = "; ".join(f"rank {rank}: {report}" for rank, report in enumerate(reports) if report is not None)
            raise PeerError(f"The fit was stopped in all processes, since it failed in another one. {failures}")

    @staticmethod
    def _exchange(collective: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            collective(*args, **kwargs)
        except RuntimeError as error:
            raise PeerError(
                f"Another process of the group is gone, or has not called fit within the timeout of "
                f"init_process_group, and so the fit was stopped: {error}"
            ) from error


def current_group() -> Group | None:
    """Return the group of processes, or None where `torch.distributed` has not been initialised with several.

    A process that was forked from one of the group is not in it.
    """
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return Group() if several and dist.group.WORLD is not _inherited else None


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Raise RuntimeError when another thread is in a shared fit: which thread comes first may differ among ranks."""
    if not _turn.acquire(blocking=False):
        raise RuntimeError(
            "Another thread of this process is in a shared fit; the processes of a group make one at a time. Call fit "
            "from one thread, or fit in processes without torch.distributed."
        )
    try:
        yield
    finally:
        _turn.release()


@contextlib.contextmanager
def _deferred_interrupts() -> Iterator[None]:
    """Have Ctrl-C wait for the next `Group.check`: between two exchanges it would leave the others in the second.

    Where somebody else handles Ctrl-C, another thread or a fit around this one, nothing changes.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: _interrupted.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if _interrupted.is_set():
            _interrupted.clear()
            raise KeyboardInterrupt


def together(method: Callable[..., T]) -> Callable[..., T]:
    """Decorate a fitting method so that it raises in all processes of the group when it raises in one."""

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> T:
        group = current_group()
        if group is None:
            return method(*args, **kwargs)
        with _one_at_a_time(), _deferred_interrupts():
            try:
                result = method(*args, **kwargs)
                group.check()
                return result
            except PeerError:
                raise
            except BaseException as error:
                group.check(error)
                raise

    return wrapped
