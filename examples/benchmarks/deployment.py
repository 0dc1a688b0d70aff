"""A fitted Pipeline as a joblib file under torch and as an ONNX graph under onnxruntime: size, start and speed."""

import functools
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
import numpy as np
import onnxruntime
import torch
from harness import images, in_turn, quartiles, ratios
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from training import MODELS

from skvae.onnx import decoder_to_onnx, to_onnx

# What a new process does until it has classified a row.
STARTS = {
    "torch": (
        "import sys, joblib, numpy; joblib.load(sys.argv[1]).predict_proba(numpy.zeros((1, 784), numpy.float32))"
    ),
    "onnxruntime": (
        "import sys, onnxruntime, numpy; "
        "onnxruntime.InferenceSession(sys.argv[2]).run(None, {'X': numpy.zeros((1, 784), numpy.float32)})"
    ),
    "Python and NumPy alone": "import numpy",
}


def installed(package):
    """Return the package and all that it requires, as they are installed here."""
    found, wanted = set(), [package]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            # Requirements with a condition are for other systems, or for extras.
            requirements = [text for text in importlib.metadata.requires(name) or [] if ";" not in text]
            wanted += [re.match(r"[\w.-]+", text)[0].lower().replace("_", "-") for text in requirements]
    return sorted(found)


def megabytes(package):
    """Return the size of the files of a package."""
    files = (Path(file.locate()) for file in importlib.metadata.files(package) or [])
    return sum(path.stat().st_size for path in files if path.is_file() and path.suffix != ".pyc") / 1e6


def session(model):
    """Return a session with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def compare(contestants, seconds, n_rounds):
    """Return each contestant's seconds and its time over the first one's in the same round."""
    times = in_turn(contestants, seconds=seconds, n_rounds=n_rounds)
    over_first = ratios(times, next(iter(times)))
    return {name: {"seconds": quartiles(values), "ratio": over_first[name]} for name, values in times.items()}


def sizes_and_starts(pipeline, graph, decoder, seconds):
    """Return the megabytes of the files, and the seconds of a process that loads a Pipeline and classifies a row."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "model.joblib", Path(folder) / "model.onnx"]
        joblib.dump(pipeline, files[0])
        files[1].write_bytes(graph.SerializeToString())
        sizes = {"joblib": files[0].stat().st_size, "ONNX": files[1].stat().st_size, "decoder": decoder.ByteSize()}
        starts = {
            name: lambda code=code: subprocess.run([sys.executable, "-c", code, *files], check=True)
            for name, code in STARTS.items()
        }
        return {"megabytes": {name: size / 1e6 for name, size in sizes.items()}, "start": compare(starts, seconds, 5)}


def speed(pipeline, graph, decoder, X, seconds):
    """Return seconds and ratios of predictions and reconstructions, a row at a time and a thousand at a time."""
    vae = pipeline[0]
    classify, decode, Z = session(graph), session(decoder), vae.transform(X)
    np.testing.assert_allclose(classify.run(None, {"X": X})[1], pipeline.predict_proba(X), atol=1e-5)
    contestants = {
        "predict_proba": {
            "torch": lambda n: pipeline.predict_proba(X[:n]),
            "onnxruntime": lambda n: classify.run(None, {"X": X[:n]}),
        },
        "inverse_transform": {
            "torch": lambda n: vae.inverse_transform(Z[:n]),
            "onnxruntime": lambda n: decode.run(None, {"Z": Z[:n]}),
        },
    }
    results = []
    for what, functions in contestants.items():
        for n_rows in (1, 1000):
            calls = {name: functools.partial(function, n_rows) for name, function in functions.items()}
            times = compare(calls, seconds / 4, 300 if n_rows == 1 else 9)
            results.append({"what": what, "rows": n_rows, "times": times})
    return results


def measure(seconds):
    """Return what has to be installed, and for each model sizes of files, seconds of a start, and of predictions."""
    X = images(3000)
    y = np.random.RandomState(0).randint(10, size=len(X))
    models = []
    for model, estimator in MODELS.items():
        vae = estimator(max_iter=1, batch_size=512, random_state=0)
        pipeline = make_pipeline(vae, LogisticRegression(max_iter=1000)).fit(X, y)
        graphs = to_onnx(pipeline), decoder_to_onnx(pipeline[0])
        figures = sizes_and_starts(pipeline, *graphs, seconds)
        models.append({"model": model, **figures, "speed": speed(pipeline, *graphs, X.astype(np.float32), seconds)})
    return {
        "packages": {top: {name: megabytes(name) for name in installed(top)} for top in ("skvae", "onnxruntime")},
        "versions": {name: importlib.metadata.version(name) for name in ("onnx", "onnxruntime", "skl2onnx")},
        "models": models,
    }
