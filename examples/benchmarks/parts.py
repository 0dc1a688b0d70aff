"""The parts that the training step is made of, beside what torch offers for them; and profiles of whole steps."""

import torch
from alternatives import index_tensor_loop
from harness import images, in_turn, quartiles
from sklearn.datasets import load_digits
from torch import nn
from torch.profiler import ProfilerActivity, profile
from training import MODELS, skvae_epoch

from skvae._model import ops
from skvae._model.noise import Noise


def convolution():
    """Return functions by name."""
    weight, bias = (torch.randn(shape).mul_(0.1).requires_grad_() for shape in ((32, 1, 3, 3), (32,)))
    index = ops.window_index((28, 28, 1))
    x, gradient = torch.rand(128, 784), torch.randn(128, 6272)
    layouts = {"torch's layers": torch.contiguous_format, "torch's layers, channels last": torch.channels_last}

    def layers(memory_format):
        x_, weight_ = (t.detach().contiguous(memory_format=memory_format) for t in (x.view(-1, 1, 28, 28), weight))
        weight_.requires_grad_()

        def both():
            y = nn.functional.max_pool2d(nn.functional.conv2d(x_, weight_, bias, padding=1), 2)
            torch.autograd.grad(y.flatten(1), [weight_, bias], gradient)

        return both

    def fused():
        torch.autograd.grad(ops.convolve_and_pool(x, weight, bias, (28, 28, 1), index), [weight, bias], gradient)

    return {**{name: layers(layout) for name, layout in layouts.items()}, "skvae": fused}


def dropout():
    """Return functions by name."""
    x, generator = torch.rand(128, 512), torch.Generator().manual_seed(0)
    noise = Noise(torch.device("cpu"), 0)
    return {
        "bernoulli_": lambda: x * torch.empty_like(x).bernoulli_(0.9, generator=generator),
        "skvae": lambda: x * ops.dropout_mask(noise.bits(x.shape), 0.1),
    }


def selection():
    """Return functions by name."""
    x, a, b = torch.randn(3, 128, 784)
    return {
        "torch.where": lambda: torch.where(x > 0, a, b),
        "skvae": lambda: torch.lerp(b, a, x.sign().clamp_min(0)),
    }


def softplus():
    """Return functions by name."""
    halves = torch.randn(128, 1568)[:, 784:]
    return {
        "of halves of rows": lambda: nn.functional.softplus(halves),
        "of a copy in one piece": lambda: nn.functional.softplus(halves.contiguous()),
    }


def products():
    """Return functions by name."""
    x, weight, gradient = torch.randn(128, 6272), torch.randn(512, 6272), torch.randn(128, 512)
    low = [tensor.bfloat16() for tensor in (x, weight, gradient)]

    def multiply(x, weight, gradient):
        return torch.mm(x, weight.t()), torch.mm(gradient.t(), x), torch.mm(gradient, weight)

    return {"float32": lambda: multiply(x, weight, gradient), "bfloat16": lambda: multiply(*low)}


def adam():
    """Return functions by name."""
    parameters = [
        nn.Parameter(torch.randn(shape) * 0.05)
        for shape in ((128, 784), (128,), (40, 128), (40,), (128, 20), (128,), (1568, 128), (1568,))
    ]
    gradients = [torch.randn_like(parameter) * 1e-3 for parameter in parameters]
    moments = [[torch.zeros_like(p.data) for p in parameters] for _ in range(2)]
    n_steps = [torch.zeros(()) for _ in parameters]
    optimizer = torch.optim.Adam(parameters, lr=1e-5, fused=True)

    def with_torch():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_value_(parameters, 2.0)
        optimizer.step()

    learning_rate = torch.tensor(1e-5)

    @torch.no_grad()
    def kernel():
        for gradient in gradients:
            gradient.clamp_(-2.0, 2.0)
        ops.adam_(parameters, gradients, *moments, n_steps, learning_rate, 0.0)

    return {"torch.optim.Adam": with_torch, "the fused kernel": kernel}


def threads():
    """Return functions by name."""
    X = load_digits().data
    n_threads = torch.get_num_threads()

    def fit(n):
        torch.set_num_threads(n)
        MODELS["normal"](max_iter=20, random_state=0).fit(X)
        torch.set_num_threads(n_threads)

    return {f"{n} threads": lambda n=n: fit(n) for n in (1, n_threads)}


PARTS = {
    "convolution and max-pooling of 128 images, forward and backward": convolution,
    "a dropout mask for 128 x 512 entries, drawn and applied": dropout,
    "a choice between two tensors of 128 x 784 entries by the sign of a third": selection,
    "`softplus` of 128 x 784 entries that are the second halves of rows": softplus,
    "the three matrix products of a dense layer of 6272 x 512 on 128 rows": products,
    "clipping and Adam for the weights of the normal VAE": adam,
    "twenty epochs of the normal VAE on the digits": threads,
}


def shares(epoch, n_largest=10):
    """Return the operations that take most of an epoch, with their shares of its time."""
    epoch()
    with profile(activities=[ProfilerActivity.CPU]) as record:
        epoch()
    events = sorted(record.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return {event.key: event.self_cpu_time_total / total for event in events[:n_largest]}


def measure(seconds):
    """Return microseconds by part and contestant, and the profiles in batches of 128."""
    results = {"parts": [], "profiles": []}
    for part, contestants in PARTS.items():
        times = in_turn(contestants(), seconds=seconds / 8, n_rounds=10)
        results["parts"] += [
            {"part": part, "contestant": name, "microseconds": quartiles([1e6 * value for value in values])}
            for name, values in times.items()
        ]
    for model, n_rows in (("normal", 10240), ("continuous Bernoulli", 1024)):
        X = images(n_rows)
        epochs = {
            "index-tensor loop": index_tensor_loop(model, torch.from_numpy(X).float().div_(255), 128),
            "skvae": skvae_epoch(model, X, 128),
        }
        results["profiles"] += [
            {"model": model, "contestant": name, "shares": shares(epoch)} for name, epoch in epochs.items()
        ]
    return results
