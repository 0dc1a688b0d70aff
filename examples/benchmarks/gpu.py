"""Training and inference on a CUDA device: recorded steps against ordinary ones, alternatives, memory, whole fits."""

import time
import warnings

import torch
from alternatives import index_tensor_loop, pythae_epoch, skorch_epoch
from harness import images, quartiles
from training import MODELS, make_run

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer

N_ROWS, N_EPOCHS = 60_000, 200
N_TIMED = 3

# What each row of the tables trains.
STUDY = {f"{model}, the study's": estimator for model, estimator in MODELS.items()}
DEFAULTS = {"normal": NormalVAETransformer, "continuous Bernoulli": ContinuousBernoulliVAETransformer}
NETWORKS = STUDY | DEFAULTS

# The networks that other loops train as well, by the names that these have for them.
ALTERNATIVES = dict(zip(STUDY, MODELS, strict=True))

BATCH_SIZES = (128, 512, 4096)

# Rows that a DataLoader gets: it needs ten seconds for all the images.
N_ROWS_OF_LOADERS = 2_000

# Rows that have a score.
N_SCORED = 20_000


def timed(call, n_rows):
    """Return rows per second over some calls, after one that is not counted."""
    call()
    rates = []
    for _ in range(N_TIMED):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        rates.append(n_rows / (time.perf_counter() - start))
    return quartiles(rates)


def alternatives(model, tensor, batch_size):
    """Return epochs of the same network as other loops train it, each with its number of rows."""
    contestants = {"index-tensor loop": (index_tensor_loop(model, tensor, batch_size), len(tensor))}
    if batch_size <= N_ROWS_OF_LOADERS:
        few = tensor[:N_ROWS_OF_LOADERS]
        contestants["skorch"] = skorch_epoch(model, few, batch_size), len(few)
        contestants["pythae"] = pythae_epoch(model, few.cpu(), batch_size), len(few)
    return contestants


def epochs(X):
    """Return images per second by network, batch size and contestant."""
    device = torch.device("cuda")
    tensor = torch.from_numpy(X).to(device).float().div_(255)
    results = []
    for network, estimator in NETWORKS.items():
        for batch_size in BATCH_SIZES:
            run, unrecorded = (make_run(estimator(batch_size=batch_size), X, device) for _ in range(2))
            unrecorded._recorded_steps = None
            contestants = {
                "skvae": (run.train_epoch, len(X)),
                "skvae, steps not recorded": (unrecorded.train_epoch, len(X)),
            }
            if network in ALTERNATIVES:
                contestants |= alternatives(ALTERNATIVES[network], tensor, batch_size)
            results += [
                {"network": network, "batch_size": batch_size, "contestant": name, "images_per_second": timed(*what)}
                for name, what in contestants.items()
            ]
    return results


def fits(X):
    """Return seconds of fits and their peak memory, and the models of the longest by network."""
    results, models = [], {}
    for network, estimator in NETWORKS.items():
        sizes = {"1 epoch": {"max_iter": 1}, f"{N_EPOCHS} epochs": {"max_iter": N_EPOCHS}}
        if network in DEFAULTS:
            sizes["nothing set"] = {"batch_size": "auto"}
        for what, parameters in sizes.items():
            fitted = estimator(random_state=0, device="cuda", **{"batch_size": 512} | parameters)
            torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            fitted.fit(X)
            results.append(
                {
                    "network": network,
                    "what": what,
                    "epochs": fitted.n_iter_,
                    "seconds": time.perf_counter() - start,
                    "megabytes": torch.cuda.max_memory_allocated() / 1e6,
                    "elbo": fitted.history_["elbo"][-1],
                }
            )
            models[network] = fitted
    return results, models


def inference(models, X):
    """Return rows per second of `transform` and of `score_samples`, and peak memory."""
    results = []
    for network, fitted in models.items():
        for name, n_rows in (("transform", len(X)), ("score_samples", N_SCORED)):
            method = getattr(fitted, name)
            torch.cuda.reset_peak_memory_stats()
            rate = timed(lambda method=method, n_rows=n_rows: method(X[:n_rows]), n_rows)
            megabytes = torch.cuda.max_memory_allocated() / 1e6
            results.append({"network": network, "what": name, "rows_per_second": rate, "megabytes": megabytes})
    return results


def measure():
    """Return all three tables."""
    if not torch.cuda.is_available():
        raise RuntimeError("The section gpu needs a CUDA device, and torch finds none. Leave it out with --sections.")
    X = images(N_ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results, models = fits(X)
        return {"epochs": epochs(X), "fits": results, "inference": inference(models, X)}
