"""Training and inference on a CUDA device: recorded steps against ordinary ones, alternatives, memory, whole fits."""

import time
import warnings

import torch
from alternatives import index_tensor_loop, pythae_epoch, skorch_epoch
from harness import images, quartiles
from training import MODELS, make_run

N_ROWS, N_EPOCHS = 60_000, 50

# What each row of the tables trains: the estimator, and its parameters.
NETWORKS = {
    "normal": ("normal", {}),
    "continuous Bernoulli": ("continuous Bernoulli", {}),
    "continuous Bernoulli, dense 128": (
        "continuous Bernoulli",
        {"encoder": "dense", "hidden_layer_sizes": (128,), "dropout": 0.0},
    ),
}
BATCH_SIZES = (128, 512, 4096)

# Rows that a DataLoader gets: it needs ten seconds for all the images.
N_ROWS_OF_LOADERS = 2_000


def timed(epoch, n_epochs, n_rows):
    """Return images per second over some epochs, after one that is not counted."""
    epoch()
    rates = []
    for _ in range(n_epochs):
        torch.cuda.synchronize()
        start = time.perf_counter()
        epoch()
        torch.cuda.synchronize()
        rates.append(n_rows / (time.perf_counter() - start))
    return quartiles(rates)


def epochs(X):
    """Return images per second by network, batch size and contestant."""
    device = torch.device("cuda")
    tensor = torch.from_numpy(X).to(device).float().div_(255)
    few = tensor[:N_ROWS_OF_LOADERS]
    results = []
    for network, (model, parameters) in NETWORKS.items():
        for batch_size in BATCH_SIZES:
            contestants = {}
            for name, records in (("skvae", True), ("skvae, steps not recorded", False)):
                run = make_run(model, X, batch_size, device, **parameters)
                if not records:
                    run._recorded_steps = None
                contestants[name] = run.train_epoch, len(X), 1
            if not parameters:
                contestants["index-tensor loop"] = index_tensor_loop(model, tensor, batch_size), len(X), 1
            if not parameters and batch_size <= N_ROWS_OF_LOADERS:
                contestants["skorch"] = skorch_epoch(model, few, batch_size), len(few), 1
                contestants["pythae"] = pythae_epoch(model, few.cpu(), batch_size), len(few), 1
            for name, (epoch, n_rows, n_epochs) in contestants.items():
                rate = timed(epoch, n_epochs, n_rows)
                results.append(
                    {"network": network, "batch_size": batch_size, "contestant": name, "images_per_second": rate}
                )
    return results


def fits(X):
    """Return seconds of whole fits, seconds to the end of the first epoch, and peak memory."""
    results = []
    for network, (model, parameters) in NETWORKS.items():
        for batch_size in (128, 512):
            estimator = MODELS[model](random_state=0, device="cuda", batch_size=batch_size, **parameters)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            seconds = {}
            for n_epochs in (1, N_EPOCHS):
                start = time.perf_counter()
                estimator.set_params(max_iter=n_epochs).fit(X)
                seconds[n_epochs] = time.perf_counter() - start
            results.append(
                {
                    "network": network,
                    "batch_size": batch_size,
                    "seconds": seconds[N_EPOCHS],
                    "first_epoch": seconds[1],
                    "megabytes": torch.cuda.max_memory_allocated() / 1e6,
                    "elbo": estimator.history_["elbo"][-1],
                }
            )
    return results


def inference(X):
    """Return rows per second of `transform` and of `score_samples`."""
    results = []
    for network, (model, parameters) in NETWORKS.items():
        fitted = MODELS[model](max_iter=1, random_state=0, device="cuda", **parameters).fit(X)
        for name, n_rows in (("transform", len(X)), ("score_samples", 5_000)):
            method = getattr(fitted, name)
            rate = timed(lambda method=method, n_rows=n_rows: method(X[:n_rows]), 3, n_rows)
            results.append({"network": network, "what": name, "rows_per_second": rate})
    return results


def measure():
    """Return all three tables."""
    if not torch.cuda.is_available():
        raise RuntimeError("The section gpu needs a CUDA device, and torch finds none. Leave it out with --sections.")
    X = images(N_ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {"device": torch.cuda.get_device_name(), "epochs": epochs(X), "fits": fits(X), "inference": inference(X)}
