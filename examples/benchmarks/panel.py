"""Measure both estimators at their defaults beside linear models, on data sets that nobody tuned them to.

    python examples/benchmarks/panel.py                        # everything; goes on where it stopped
    python examples/benchmarks/panel.py --fresh                # from the beginning
    python examples/benchmarks/panel.py --sets iris sensors --models normal_vae
    python examples/benchmarks/panel.py --part validation --options '{"max_iter": 50}'

The test rows are for the result: it goes to docs/results/panel.json, docs/panel.md and docs/images/panel.png.
Choices of defaults are made with ``--part validation``, which fits and measures on other rows, takes parameters,
prints a table and writes nothing. What ships the data, ``pip install -e ".[benchmarks]"`` installs. Nothing is
downloaded; Fashion-MNIST is in the panel where the environment variable SKVAE_DATA_HOME names the folder that holds it.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import panel_report
from harness import machine
from panel_data import LOADERS, WITH_ENDS, data_sets
from panel_measures import LinearModels, measure_vae

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer

matplotlib.use("Agg")

DOCS = Path(__file__).parents[2] / "docs"

MODELS = {"normal_vae": NormalVAETransformer, "continuous_bernoulli_vae": ContinuousBernoulliVAETransformer}

# The sets on which a model is measured, where it is not for all of them.
SUITED = {"continuous_bernoulli_vae": WITH_ENDS}

# What a fit ends with that cannot be done.
FAILURES = (ArithmeticError, RuntimeError, ValueError)


def measure(models, part, options, measured):
    """Add to `measured` what it lacks of the linear models and of `models`. Yield the name of each model."""
    missing = [name for name in models if name not in measured["models"]]
    if not missing:
        return
    linear = LinearModels(part)
    if "linear" not in measured:
        measured["linear"] = linear.measure()
    for name in missing:
        vae = MODELS[name](part.n_components, **{"random_state": 0} | options)
        try:
            measured["models"][name] = measure_vae(vae, part, linear)
        except FAILURES as error:
            measured["models"][name] = {"error": f"{type(error).__name__}: {error}"}
        yield name


def run(arguments, results, save):
    """Measure what is missing from `results`, and call `save` after each model."""
    loaders = {name: load for name, load in data_sets().items() if name in arguments.sets}
    print(panel_report.screen_header())
    for name, load in loaders.items():
        models = [model for model in arguments.models if name in SUITED.get(model, loaders)]
        if set(models) <= set(results.get(name, {"models": {}})["models"]):
            continue
        part = load().part(arguments.part)
        size = {
            "rows": len(part.X),
            "rows_held_out": len(part.X_held_out),
            "columns": part.X.shape[1],
            "n_components": part.n_components,
        }
        entry = results.setdefault(name, size | {"models": {}})
        for model in measure(models, part, arguments.options, entry):
            print(panel_report.screen_row(name, model, entry), flush=True)
            save()


def forget(arguments, results):
    """Drop what is to be measured again."""
    for name in arguments.sets:
        if name in results:
            results[name].pop("linear", None)
            for model in arguments.models:
                results[name]["models"].pop(model, None)


def parse():
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=LOADERS, default=list(LOADERS), metavar="SET")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--part", choices=("validation", "test"), default="test", help="default: %(default)s")
    parser.add_argument("--options", type=json.loads, default={}, help="parameters of the estimators, as JSON")
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder that gets panel.md, results/ and images/")
    arguments = parser.parse_args()
    if arguments.options and arguments.part == "test":
        parser.error("--options wants --part validation: no parameter is chosen on the test rows.")
    return arguments


def main():
    """Measure, and write the report or print it."""
    arguments = parse()
    if arguments.part == "validation":
        results = {}
        run(arguments, results, save=lambda: None)
        print(panel_report.screen_summary(results))
        return
    path = arguments.output / "results" / "panel.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else {"sets": {}}
    if arguments.fresh:
        forget(arguments, kept["sets"])
    content = {"machine": machine(), "sets": kept["sets"]}

    def save():
        path.write_text(json.dumps(content, indent=1) + "\n")

    run(arguments, content["sets"], save)
    content["sets"] = {name: content["sets"][name] for name in LOADERS if name in content["sets"]}
    save()
    panel_report.write(content, (DOCS / "panel.md").read_text(), arguments.output)
    print(panel_report.screen_summary(content["sets"]))


if __name__ == "__main__":
    main()
