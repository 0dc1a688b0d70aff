"""Several processes that fit one model together: each takes its part of the rows of every minibatch.

All of them call `fit` with the same data and parameters. Before they exchange anything they make sure that none has
failed, so that an error in one is an error in all, and nobody waits for a process that will not come.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from skvae._data.fingerprint import Identity
from skvae.exceptions import PeerError

__all__ = ["Group", "ProcessGroup", "current_group"]

T = TypeVar("T")

# Held by the thread that is in a shared fit.
_turn = threading.RLock()

# Whether Ctrl-C was pressed and the other processes have not been told. No Event: a handler that is interrupted by
# itself would wait for its lock forever.
_interrupted = False

# The group that a forked process has from its parent, and cannot talk to.
_inherited: Any = None


def _note_inherited() -> None:
    global _inherited
    _inherited = dist.group.WORLD if dist.is_available() and dist.is_initialized() else None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_inherited)


class Group:
    """The processes of one fit: here this one alone.

    Attributes
    ----------
    rank : int
        The number of this process.
    size : int
        The number of processes.
    exchanges : bool
        Whether a step of training exchanges anything, and so cannot be recorded.
    """

    rank = 0
    size = 1
    exchanges = False

    @contextlib.contextmanager
    def fitting(self) -> Iterator[None]:
        """Hold a fit: what raises in one process raises in all."""
        yield

    def part(self, n_rows: int) -> tuple[int, int]:
        """Return the first of the rows of this process, and the one after its last, out of `n_rows`."""
        return self.rank * n_rows // self.size, (self.rank + 1) * n_rows // self.size

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over the processes, the same bits in all."""
        return values

    def sum_gradients(
        self, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]
    ) -> Sequence[Tensor | None]:
        """Return the sums of the gradients of `parameters`; None for one that no process has a gradient of."""
        return gradients

    def any(self, condition: bool) -> bool:
        """Return whether `condition` is true in any process."""
        return condition

    def broadcast(self, value: T) -> T:
        """Return what the first process has for `value`."""
        return value

    def check_same(self, identity: Identity) -> None:
        """Raise ValueError unless all processes fit the same."""


class ProcessGroup(Group):
    """The processes that `torch.distributed` was initialized with."""

    exchanges = True

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        on_cuda = dist.get_backend() == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")

    @contextlib.contextmanager
    def fitting(self) -> Iterator[None]:
        """Hold a fit: what raises in one process raises in all."""
        with _one_at_a_time(), _deferred_interrupts():
            try:
                yield
                self.check()
            except PeerError:
                raise
            except BaseException as error:
                self.check(error)
                raise

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over the processes, the same bits in all."""
        self.check()
        total = values.to(self._device, copy=True)
        self._exchange(dist.all_reduce, total)
        return total.to(values.device)

    def sum_gradients(
        self, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]
    ) -> Sequence[Tensor | None]:
        """Return the sums of the gradients of `parameters`; None for one that no process has a gradient of."""
        sizes = [p.numel() for p in parameters]
        flat = [
            p.new_zeros(size) if g is None else g.reshape(-1)
            for p, g, size in zip(parameters, gradients, sizes, strict=True)
        ]
        # Which parameters play a part may depend on the rows.
        present = parameters[0].new_tensor([float(g is not None) for g in gradients])
        *sums, counts = self.sum(torch.cat([*flat, present])).split([*sizes, len(gradients)])
        return [
            total.view_as(p).to(p.dtype) if count else None
            for p, total, count in zip(parameters, sums, counts.tolist(), strict=True)
        ]

    def any(self, condition: bool) -> bool:
        """Return whether `condition` is true in any process."""
        return bool(self.sum(torch.tensor(float(condition), dtype=torch.float32, device="cpu")) > 0)

    def broadcast(self, value: T) -> T:
        """Return what the first process has for `value`."""
        self.check()
        values = [value]
        self._exchange(dist.broadcast_object_list, values, src=0)
        return values[0]

    def check_same(self, identity: Identity) -> None:
        """Raise ValueError unless all processes fit the same."""
        mine = identity.of_process  # an error here is one that the others hear of
        self.check()
        identities: list[Any] = [None] * self.size
        self._exchange(dist.all_gather_object, identities, mine)
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
        if error is None and _interrupted:
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


def current_group() -> Group:
    """Return the group of processes: this one alone where `torch.distributed` has not been initialized with several.

    A process that was forked from one of the group is not in it.
    """
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return ProcessGroup() if several and dist.group.WORLD is not _inherited else Group()


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
    global _interrupted
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _note_interrupt)
    try:
        yield
    finally:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # it raises when Ctrl-C is pressed once more
        finally:
            interrupted, _interrupted = _interrupted, False
        if interrupted:
            raise KeyboardInterrupt


def _note_interrupt(*_: Any) -> None:
    global _interrupted
    _interrupted = True
