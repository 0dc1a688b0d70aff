"""Measure what the defaults of both VAEs are chosen by: each of them changed alone, on validation rows.

    python examples/benchmarks/panel_choices.py            # half an hour on one core; goes on where it stopped
    python examples/benchmarks/panel_choices.py --fresh    # from the beginning

The models are fitted to the training rows of some sets of the panel, and measured on validation rows. The test rows of
the panel play no part. The figures go to docs/results/panel_choices.json, and tables of them into docs/panel.md.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from panel import DOCS, measure
from panel_data import data_sets
from panel_report import MODELS, fill

# Small and middle-sized sets, with labels and without. Those of the continuous Bernoulli model have values at the ends.
SETS = {
    "normal_vae": ("wine", "breast cancer", "diabetes", "digits", "image segments", "weather", "skewed", "photographs"),
    "continuous_bernoulli_vae": ("digits", "masks of digits", "percentages"),
}

# What is changed, by what is written in the table.
BOTH = {
    "the defaults": {},
    'init="random"': {"init": "random"},
    'prior="normal"': {"prior": "normal"},
    'learning_rate="constant"': {"learning_rate": "constant"},
    "learning_rate_init=1e-3": {"learning_rate_init": 1e-3},
    "learning_rate_init=5e-3": {"learning_rate_init": 5e-3},
    "weight_decay=0": {"weight_decay": 0},
    "weight_decay=1": {"weight_decay": 1},
    "batch_size=128": {"batch_size": 128},
    "max_iter=50": {"max_iter": 50},
    "max_iter=400": {"max_iter": 400},
    "early_stopping=True, n_iter_no_change=30": {"early_stopping": True, "n_iter_no_change": 30},
}
CHOICES = {
    "normal_vae": BOTH
    | {
        'noise="shared"': {"noise": "shared"},
        'noise="network"': {"noise": "network"},
    },
    "continuous_bernoulli_vae": BOTH
    | {
        "min_scale=1/128": {"min_scale": 1 / 128},
        "min_scale=1/32": {"min_scale": 1 / 32},
        "min_scale=1/16": {"min_scale": 1 / 16},
        "dropout=0.1": {"dropout": 0.1},
        "hidden_layer_sizes=256": {"hidden_layer_sizes": 256},
        'encoder="auto", hidden_layer_sizes=(512, 512), dropout=0.1': {
            "encoder": "auto",
            "hidden_layer_sizes": (512, 512),
            "dropout": 0.1,
        },
    },
}


def leads(entry):
    """Return by how much the only VAE of an entry is ahead of PCA and of FactorAnalysis."""
    (vae,), pca = entry["models"].values(), entry["linear"]["pca"]
    density = (vae["density"] - vae["rivals"]["factor_analysis"]) / entry["columns"]
    accuracy = vae["logistic"] - pca["logistic"] if "logistic" in pca else np.nan
    return vae["r2"] - pca["r2"], density, accuracy


def table(results):
    """Return the table of all choices for a model, in Markdown."""
    lines = [
        "| changed | R² over PCA's: mean | worst | nats per column over FactorAnalysis': mean | worst | "
        "accuracy over PCA's: mean |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for choice, entries in results.items():
        r2, density, accuracy = np.array([leads(entry) for entry in entries.values()], float).T
        lines.append(
            f"| `{choice}` | {r2.mean():+.3f} | {r2.min():+.3f} | {density.mean():+.2f} | {density.min():+.2f} | "
            f"{np.nanmean(accuracy):+.3f} |".replace("`the defaults`", "the defaults")
        )
    return "\n".join(lines) + "\n"


def blocks(results):
    """Return what is generated of the page, by name."""
    return {f"choices for the {name}": table(results.get(model, {})) for model, (name, _) in MODELS.items()}


def main():
    """Measure what is missing, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder that gets results/ and panel.md")
    arguments = parser.parse_args()
    path = arguments.output / "results" / "panel_choices.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() and not arguments.fresh else {}
    for model, choices in CHOICES.items():
        parts = {name: data_sets()[name]().part("validation") for name in SETS[model]}
        of_model = results.setdefault(model, {})
        for choice, options in choices.items():
            entries = of_model.setdefault(choice, {})
            for name, part in parts.items():
                entry = entries.setdefault(name, {"columns": part.X.shape[1], "models": {}})
                for _ in measure([model], part, options, entry):
                    path.write_text(json.dumps(results, indent=1) + "\n")
            print(model, table({choice: entries}).splitlines()[-1], flush=True)
        results[model] = {choice: of_model[choice] for choice in choices}
    path.write_text(json.dumps(results, indent=1) + "\n")
    (arguments.output / "panel.md").write_text(fill((DOCS / "panel.md").read_text(), blocks(results)))


if __name__ == "__main__":
    main()
