"""Small steps take one thread, and leave the threads of others as they are."""

import threading

import pytest
import torch
from torch import nn

from skvae import NormalVAETransformer
from skvae._model.threads import threads_for
from skvae.classifiers import SimpleCNNClassifier

from conftest import make

SMALL, LARGE = nn.Linear(10, 10), nn.Linear(1000, 1000)


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_new_thread(call):
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


def test_a_small_step_takes_one_thread_and_a_large_one_all():
    with threads_for(SMALL, 100):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with threads_for(LARGE, 100):
        assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), threads_for(SMALL, 100):
        raise KeyError
    assert torch.get_num_threads() == 2


def test_threads_of_others_stay_as_they_are():
    """Those of a thread that has computed already, and of one that begins meanwhile or later."""
    begin, end, others = threading.Event(), threading.Event(), []

    def watch():
        torch.get_num_threads()  # which is how torch gives a thread its number
        torch.set_num_threads(3)
        begin.set()
        end.wait()
        others.append(torch.get_num_threads())

    thread = threading.Thread(target=watch)
    thread.start()
    begin.wait()
    torch.set_num_threads(2)
    with threads_for(SMALL, 100):
        assert in_new_thread(torch.get_num_threads) == 2
    end.set()
    thread.join()
    assert others == [3]
    assert in_new_thread(torch.get_num_threads) == 2


SEEN = set()


class Recording(nn.Linear):
    """A decoder that takes note of the number of threads in training."""

    def forward(self, z):
        if self.training:
            SEEN.add(torch.get_num_threads())
        return super().forward(z)


@pytest.mark.parametrize(("width", "n_threads"), [(8, 1), (4096, 2)])
def test_a_fit_takes_one_thread_for_small_steps(width, n_threads, digits):
    SEEN.clear()
    decoder = nn.utils.skip_init(Recording, 2, 64)
    nn.init.zeros_(decoder.bias)
    nn.init.normal_(decoder.weight, generator=torch.Generator().manual_seed(0))
    parameters = {"hidden_layer_sizes": (width,), "batch_size": 64, "max_iter": 1}
    make(NormalVAETransformer, n_components=2, decoder=decoder, **parameters).fit(digits)
    assert SEEN == {n_threads}
    assert torch.get_num_threads() == 2


def test_a_classifier_takes_one_thread_for_small_steps(digits, monkeypatch):
    seen, loss = set(), nn.functional.cross_entropy

    def cross_entropy(*args, **kwargs):
        seen.add(torch.get_num_threads())
        return loss(*args, **kwargs)

    monkeypatch.setattr(nn.functional, "cross_entropy", cross_entropy)
    SimpleCNNClassifier(max_iter=1, batch_size=16, random_state=0).fit(digits, digits[:, 20] > 4)
    assert seen == {1}
    assert torch.get_num_threads() == 2
