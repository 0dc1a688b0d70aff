"""How many threads a step of training takes."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import torch
from torch import nn

from skvae._model.networks import Network, UserModule

__all__ = ["alone", "threads_for"]

# Products of a forward pass that are worth the time that threads take to wait for each other.
_FEWEST_PRODUCTS = 1 << 24

# Products that a convolution makes of one number of its output, about.
_PRODUCTS_OF_A_NUMBER = 16

# Between a new number here and the old one for others, no other fit may look.
_setting = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child could never open the lock of another thread
    os.register_at_fork(before=_setting.acquire, after_in_parent=_setting.release, after_in_child=_setting.release)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let this thread compute alone while the context is open.

    Threads that wait for each other keep their cores busy, many times as long as a small step takes where others want
    these cores. The number of threads of other Python threads stays as it is.
    """
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        yield
        return
    try:
        _set_here(1)
        yield
    finally:
        _set_here(n_threads)


def threads_for(module: nn.Module, n_rows: int) -> contextlib.AbstractContextManager[None]:
    """Return a context in which this thread computes alone, where a step is too small to be shared.

    Parameters
    ----------
    module : nn.Module
        What is trained.
    n_rows : int
        Rows of a step.
    """
    n_weights = sum(parameter.numel() for parameter in module.parameters())
    n_numbers = sum(network.width for network in module.modules() if isinstance(network, Network | UserModule))
    is_small = n_rows * (n_weights + _PRODUCTS_OF_A_NUMBER * n_numbers) < _FEWEST_PRODUCTS
    return alone() if is_small else contextlib.nullcontext()


def _set_here(n_threads: int) -> None:
    """Set the number of threads of this Python thread alone.

    torch takes the number that was set last for Python threads that have not computed yet. They get it back.
    """
    numbers: list[int] = []
    with _setting:
        _in_new_thread(lambda: numbers.append(torch.get_num_threads()))
        try:
            torch.set_num_threads(n_threads)
        finally:
            _in_new_thread(lambda: torch.set_num_threads(numbers[0]))


def _in_new_thread(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
