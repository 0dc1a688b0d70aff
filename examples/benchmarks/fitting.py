"""Whole fits, short and long ones: what starting up costs."""

from harness import images, in_turn, quartiles
from sklearn.datasets import load_digits
from training import MODELS


def epochs(seconds):
    """Return the seconds of fits of 1, 5 and 200 epochs on digits, and of 1 and 5 on 10,000 images."""
    results = []
    for data, X, numbers in (("digits", load_digits().data, (1, 5, 200)), ("10,000 images", images(10000), (1, 5))):
        for model, estimator in MODELS.items():
            fits = {n: (lambda n=n, e=estimator, X=X: e(max_iter=n, random_state=0).fit(X)) for n in numbers}
            for n_epochs, fit in fits.items():
                times = in_turn({"fit": fit}, seconds=min(seconds, 5), n_rounds=1 if n_epochs == 200 else 3)
                results.append({"data": data, "model": model, "epochs": n_epochs, "seconds": quartiles(times["fit"])})
    return results


def measure(seconds):
    """Return the table."""
    return {"epochs": epochs(seconds)}
