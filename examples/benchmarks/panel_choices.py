"""Measure what the defaults of the normal VAE are chosen by: each of them changed alone, on validation rows.

    python examples/benchmarks/panel_choices.py            # some twenty minutes on one core; goes on where it stopped
    python examples/benchmarks/panel_choices.py --fresh    # from the beginning

The models are fitted to the training rows of some sets of the panel, and measured on validation rows. The test rows of
the panel play no part. The figures go to docs/results/panel_choices.json, and a table of them into docs/panel.md.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from panel import DOCS, measure
from panel_data import data_sets
from panel_report import fill

# Small and middle-sized tables, with labels and without.
SETS = ("wine", "breast cancer", "diabetes", "digits", "image segments", "weather", "skewed", "photographs")

# What is changed, by what is written in the table.
CHOICES = {
    "the defaults": {},
    'init="random"': {"init": "random"},
    'noise="shared"': {"noise": "shared"},
    'noise="network"': {"noise": "network"},
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


def leads(entry):
    """Return by how much a VAE is ahead of PCA and of FactorAnalysis."""
    vae, pca = entry["models"]["normal_vae"], entry["linear"]["pca"]
    density = (vae["density"] - vae["rivals"]["factor_analysis"]) / entry["columns"]
    accuracy = vae["logistic"] - pca["logistic"] if "logistic" in pca else np.nan
    return vae["r2"] - pca["r2"], density, accuracy


def table(results):
    """Return the table of all choices, in Markdown."""
    lines = [
        "| changed | R² over PCA's: mean | worst | nats per column over FactorAnalysis': mean | worst | "
        "accuracy over PCA's: mean |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for choice, entries in results.items():
        r2, density, accuracy = np.array([leads(entry) for entry in entries.values()]).T
        lines.append(
            f"| `{choice}` | {r2.mean():+.3f} | {r2.min():+.3f} | {density.mean():+.2f} | {density.min():+.2f} | "
            f"{np.nanmean(accuracy):+.3f} |".replace("`the defaults`", "the defaults")
        )
    return "\n".join(lines) + "\n"


def main():
    """Measure what is missing, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder that gets results/ and panel.md")
    arguments = parser.parse_args()
    path = arguments.output / "results" / "panel_choices.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() and not arguments.fresh else {}
    parts = {name: data_sets()[name]().part("validation") for name in SETS}
    for choice, options in CHOICES.items():
        entries = results.setdefault(choice, {})
        for name, part in parts.items():
            entry = entries.setdefault(name, {"columns": part.X.shape[1], "models": {}})
            for _ in measure(["normal_vae"], part, options, entry):
                path.write_text(json.dumps(results, indent=1) + "\n")
        print(table({choice: entries}).splitlines()[-1], flush=True)
    page = fill((DOCS / "panel.md").read_text(), {"choices": table(results)})
    (arguments.output / "panel.md").write_text(page)


if __name__ == "__main__":
    main()
