"""Private generators: same seed, same bits, and nothing global is touched."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from skvae import NormalVAETransformer

from conftest import bits, global_random_state, make


def test_same_seed_same_bits(estimator_class, digits):
    assert bits(make(estimator_class).fit(digits), digits) == bits(make(estimator_class).fit(digits), digits)
    other = make(estimator_class, random_state=1).fit(digits)
    assert bits(other, digits) != bits(make(estimator_class).fit(digits), digits)


def test_random_state_instance_is_consumed(estimator_class, digits):
    state = np.random.RandomState(0)
    first, second = (make(estimator_class, random_state=state).fit(digits) for _ in range(2))
    assert bits(first, digits) != bits(second, digits)


def test_no_seed_means_fresh_entropy(estimator_class, digits):
    first, second = (make(estimator_class, random_state=None).fit(digits) for _ in range(2))
    assert bits(first, digits) != bits(second, digits)
    assert first.sample(2).tobytes() != first.sample(2).tobytes()


@pytest.mark.parametrize("random_state", [None, 0])
def test_global_generators_are_untouched(estimator_class, digits, random_state):
    before = global_random_state()
    estimator = make(
        estimator_class, random_state=random_state, dropout=0.2, early_stopping=True, n_iter_no_change=1, tol=1e3
    )
    calls = {
        "fit": lambda: estimator.fit(digits),
        "partial_fit": lambda: estimator.partial_fit(digits),
        "transform": lambda: estimator.transform(digits),
        "inverse_transform": lambda: estimator.inverse_transform(np.zeros((2, 3))),
        "sample": lambda: estimator.sample(3, random_state=random_state, observation_noise=True),
        "score_samples": lambda: estimator.score_samples(digits[:50], n_importance_samples=3),
        "score": lambda: estimator.score(digits),
    }
    for name, call in calls.items():
        call()
        assert global_random_state() == before, name


class NoisyEncoder(nn.Module):
    """Draws from torch's global generator, in training and afterwards."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 6))

    def forward(self, x):
        return self.layers(x) + 0.1 * torch.randn(len(x), 6)


@pytest.fixture(scope="module")
def noisy_encoder():
    state = torch.get_rng_state()
    module = NoisyEncoder()
    torch.set_rng_state(state)
    return module


def test_a_module_that_draws_globally_is_held_to_the_private_generator(noisy_encoder, digits):
    before = global_random_state()
    fits = [make(NormalVAETransformer, encoder=noisy_encoder, random_state=seed).fit(digits) for seed in (0, 0, 1)]
    outputs = [bits(fit, digits) for fit in fits]
    assert outputs[0] == outputs[1] != outputs[2]
    assert outputs[0] == bits(fits[0], digits)
    assert global_random_state() == before


@pytest.mark.parametrize("parameters", [{"dropout": 0.3}, {"encoder": "noisy"}], ids=["dropout", "module"])
def test_fits_in_two_threads_give_the_bits_of_fits_alone(estimator_class, digits, parameters, noisy_encoder):
    if parameters.get("encoder") == "noisy":
        parameters = {"encoder": noisy_encoder}
    estimators = [make(estimator_class, random_state=seed, max_iter=8, **parameters) for seed in range(2)]
    alone = [bits(estimator.fit(digits), digits) for estimator in estimators]
    results = [None, None]

    def work(i):
        results[i] = bits(make(estimator_class, random_state=i, max_iter=8, **parameters).fit(digits), digits)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == alone


def test_the_users_default_device_does_not_leak_in(estimator_class, digits):
    expected = bits(make(estimator_class, device="cpu", dropout=0.1).fit(digits), digits)
    torch.set_default_device("meta")
    try:
        assert bits(make(estimator_class, device="cpu", dropout=0.1).fit(digits), digits) == expected
    finally:
        torch.set_default_device(None)


def test_the_users_torch_settings_do_not_leak_in(estimator_class, digits):
    expected = bits(make(estimator_class).fit(digits), digits)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            assert bits(make(estimator_class).fit(digits), digits) == expected
        with torch.inference_mode():
            assert bits(make(estimator_class).fit(digits), digits) == expected
    finally:
        torch.set_default_dtype(default)
