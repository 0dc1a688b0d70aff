"""Several processes that fit one model together: each takes its part of the rows of every minibatch.

All of them call `fit` with the same data and parameters. Before they exchange anything they make sure that none has
failed, so that an error in one is an error in all, and nobody waits for a process that will not come.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Group", "PeerError", "ShardedGenerator", "current_group", "draw_rows", "together"]

T = TypeVar("T")


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
        """Raise ValueError unless parameters and data are the same in all processes."""
        self.check()
        identities: list[Any] = [None] * self.size
        self._exchange(dist.all_gather_object, identities, identity)
        for rank, other in enumerate(identities):
            for name, text in identities[0].items():
                if other.get(name) != text:
                    raise ValueError(
                        f"All processes of the group have to fit the same: {name} is {text} in rank 0 and "
                        f"{other.get(name)} in rank {rank}. Give all ranks the same data and parameters, modules "
                        f"with the same weights; each takes its part of every minibatch by itself."
                    )

    def check(self, error: BaseException | None = None) -> None:
        """Tell the others of `error`, or that there is none; raise PeerError if another process has failed."""
        failed = torch.tensor([error is not None], dtype=torch.int32, device=self._device)
        self._exchange(dist.all_reduce, failed)
        if not failed:
            return
        reports: list[Any] = [None] * self.size
        report = None if error is None else f"{type(error).__name__}: {error}"
        self._exchange(dist.all_gather_object, reports, report)
        if error is None:
            failures = "; ".join(f"rank {rank}: {report}" for rank, report in enumerate(reports) if report is not None)
            raise PeerError(f"The fit was stopped in all processes, since it failed in another one. {failures}")

    @staticmethod
    def _exchange(collective: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            collective(*args, **kwargs)
        except RuntimeError as error:
            raise PeerError(f"Another process of the group is gone, and so the fit was stopped: {error}") from error


def current_group() -> Group | None:
    """Return the group of processes, or None where `torch.distributed` has not been initialised with several."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return Group() if several else None


def together(method: Callable[..., T]) -> Callable[..., T]:
    """Decorate a fitting method so that it raises in all processes of the group when it raises in one."""

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> T:
        group = current_group()
        try:
            result = method(*args, **kwargs)
            if group is not None:
                group.check()
            return result
        except PeerError:
            raise
        except BaseException as error:
            if group is not None:
                group.check(error)
            raise

    return wrapped
