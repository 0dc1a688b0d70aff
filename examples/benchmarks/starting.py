"""The time of the imports, in a module that imports none of them before it is asked."""

import time


def importing():
    """Return the seconds that importing torch takes, scikit-learn's base after it, and skvae after both."""
    times = [time.perf_counter()]
    import torch  # noqa: F401

    times.append(time.perf_counter())
    import sklearn.base  # noqa: F401

    times.append(time.perf_counter())
    import skvae  # noqa: F401

    times.append(time.perf_counter())
    seconds = (after - before for before, after in zip(times, times[1:], strict=False))
    return dict(zip(("torch", "sklearn.base", "skvae"), seconds, strict=True))
