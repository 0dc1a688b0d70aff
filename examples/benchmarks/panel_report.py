"""The panel on the screen, as tables of its page, and as a picture."""

import re
import textwrap

import matplotlib.pyplot as plt
import numpy as np
from panel_targets import ACCURACY, CLASSIFIERS, DENSITY, R2, TARGETS, counts, reached
from report import table

# Each model: its name in tables, and its color.
MODELS = {"normal_vae": ("normal VAE", "tab:blue"), "continuous_bernoulli_vae": ("CB VAE", "tab:orange")}

MISSED = " ↓"

# The smallest R² that is shown.
WORST = -10

# Characters of a warning or an error.
LONGEST = 160

# What the picture shows at most: the share of variance that is lost, and nats per column.
LEAST_LOST, MOST_NATS = 1e-4, 1.0


def measured_models(sets):
    """Return the models of which there are results, and their names in tables."""
    return {key: name for key, (name, _) in MODELS.items() if any(key in entry["models"] for entry in sets.values())}


# In cells


def value(measured, key, style=".3f"):
    """Return a number as text, and nothing where there is none."""
    return format(measured[key], style) if measured.get(key) is not None else ""


def kept(measured, key, style=".4f"):
    """Return an R² as text. How bad a very bad one is does not matter."""
    return f"below {WORST}" if (measured.get(key) or 0) < WORST else value(measured, key, style)


def nats(measured, key):
    """Return a log density as text. One that has no bound is a large number."""
    return value(measured, key, ".1e" if abs(measured.get(key) or 0) >= 1e5 else ".2f")


def result(entry, model):
    """Return what was measured of a model on a set; nothing when it was not measured."""
    return entry["models"].get(model, {})


def marked(text, target, entry, model):
    """Return the text of a cell, with a mark where the model misses the target."""
    measured = result(entry, model)
    return text + MISSED if measured and reached(target, entry, measured) is False else text


# On the screen

COLUMNS = ("R²", "PCA", "density", "FA", "logistic", "PCA", "15 nb", "PCA", "AUC", "best", "s", "epochs")


def screen_line(name, cells):
    """Return cells of equal width."""
    return f"{name:<32}" + "".join(f"{cell:>11}" for cell in cells)


def screen_header():
    """Return the lines above the rows."""
    return f"{MISSED} a target is missed that is asked of all sets\n\n" + screen_line("", COLUMNS)


def screen_row(name, model, entry):
    """Return what was measured of a model on a set, beside its rivals, in one line and one for each warning."""
    vae, linear = entry["models"][model], entry["linear"]
    start = f"{name}, {MODELS[model][0]}"
    if "error" in vae:
        return f"{start:<32} {textwrap.shorten(vae['error'], LONGEST)}"
    cells = [marked(kept(vae, "r2"), R2, entry, model), kept(linear["pca"], "r2")]
    cells += [marked(nats(vae, "density"), DENSITY, entry, model), nats(vae["rivals"], "factor_analysis")]
    for key, target in ACCURACY.items():
        cells += [marked(value(vae, key), target, entry, model), value(linear["pca"], key)]
    cells += [value(vae, "auc"), f"{max(linear['auc'].values()):.3f}" if "auc" in linear else ""]
    cells += [f"{vae['seconds']:.1f}", str(vae["epochs"])]
    warned = [f"    {textwrap.shorten(text, LONGEST)}" for text in vae["warnings"]]
    return "\n".join([screen_line(start, cells), *warned])


def screen_summary(sets):
    """Return the counts of the targets as text."""
    lines = []
    for model, name in measured_models(sets).items():
        for target, (n_reached, n_sets) in counts(sets, model).items():
            lines.append(f"{name}, {target} (asked: {TARGETS[target][0]}): {n_reached} of {n_sets}")
    return "\n".join(lines)


# On the page


def summary(sets):
    """Return the table of targets."""
    models = measured_models(sets)
    counted = {model: counts(sets, model) for model in models}
    rows = [
        [name, asked, *("{} of {}".format(*counted[model][name]) for model in models)]
        for name, (asked, _) in TARGETS.items()
    ]
    return table(["on held-out rows", "asked of", *models.values()], rows)


def reconstructions(sets):
    """Return the table of R² of whole tables, with their sizes."""
    models = measured_models(sets)
    rows = []
    for name, entry in sets.items():
        cells = [marked(kept(result(entry, model), "r2"), R2, entry, model) for model in models]
        size = f"{entry['rows']:,} × {entry['columns']:,}, {entry['n_components']}"
        linear = [kept(entry["linear"][key], "r2") for key in ("pca", "factor_analysis")]
        rows.append([name, size, *linear, *cells])
    return table(["R²", "rows × columns, components", "PCA", "FactorAnalysis", *models.values()], rows)


def columns(sets):
    """Return the table of R² by column."""
    models = measured_models(sets)
    rows = []
    for name, entry in sets.items():
        measured = [entry["linear"]["pca"], *(result(entry, model) for model in models)]
        rows.append([name, *(kept(one, key, ".3f") for key in ("r2_median", "r2_smallest") for one in measured)])
    names = ["PCA", *models.values()]
    return table(["R² of a column", *(f"{kind}, {name}" for kind in ("median", "smallest") for name in names)], rows)


def densities(sets, model):
    """Return the table of log densities of a model and of its rivals at the same floor."""
    rows = []
    for name, entry in sets.items():
        own = result(entry, model)
        if not own or "error" in own:
            continue
        rivals = [nats(own["rivals"], key) for key in ("pca", "factor_analysis", "gaussian_mixture")]
        text = marked(nats(own, "density"), DENSITY, entry, model)
        rows.append([name, *rivals, text, own["rows_outside"] or ""])
    header = ["nats per row", "PCA", "FactorAnalysis", "GaussianMixture", MODELS[model][0], "rows outside the support"]
    return table(header, rows) if rows else ""


def accuracies(sets):
    """Return the tables of accuracy, one for each classifier."""
    models = measured_models(sets)
    parts = []
    for key, name in CLASSIFIERS.items():
        rows = []
        for set_name, entry in sets.items():
            linear = entry["linear"]
            if key not in linear["pca"]:
                continue
            cells = [f"{value(linear['pca'], key)} ± {value(linear['pca'], f'{key}_error')}"]
            cells.append(value(linear["factor_analysis"], key))
            cells += [marked(value(result(entry, model), key), ACCURACY[key], entry, model) for model in models]
            rows.append([set_name, *cells])
        parts.append(table([name, "PCA, standard error", "FactorAnalysis", *models.values()], rows))
    return "\n".join(parts)


def anomalies(sets):
    """Return the table of AUC."""
    models = measured_models(sets)
    found = {name: entry for name, entry in sets.items() if "auc" in entry["linear"]}
    rivals = list(dict.fromkeys(rival for entry in found.values() for rival in entry["linear"]["auc"]))
    rows = [
        [
            name,
            *(value(entry["linear"]["auc"], rival) for rival in rivals),
            *(value(result(entry, model), "auc") for model in models),
        ]
        for name, entry in found.items()
    ]
    return table(["AUC", *rivals, *models.values()], rows) if rows else ""


def fits(sets):
    """Return the table of time, and of warnings and errors."""
    models = measured_models(sets)
    rows = []
    for name, entry in sets.items():
        linear = [value(entry["linear"][key], "seconds", ".2f") for key in ("pca", "factor_analysis")]
        for model in entry["models"]:
            vae = entry["models"][model]
            said = vae.get("error") or "; ".join(vae["warnings"])
            said = textwrap.shorten(said.replace("|", "/"), LONGEST)
            cells = [value(vae, "seconds", ".1f"), str(vae.get("epochs", "")), said]
            rows.append([f"{name}, {models[model]}", *linear, *cells])
    return table(["", "PCA, s", "FactorAnalysis, s", "VAE, s", "its epochs", "what it warned of"], rows)


def blocks(content):
    """Return what is generated of the page, by name."""
    sets = content["sets"]
    where = ", ".join(f"{key} {name}" for key, name in content["machine"].items() if name is not None)
    return {
        "picture": "![Reconstruction, log density and accuracy of the linear models and of the VAEs on each set]"
        "(images/panel.png)\n\n*Each set of data is a row. All figures are in `docs/results/panel.json`.*\n",
        "summary": summary(sets),
        "reconstructions": reconstructions(sets),
        "columns": columns(sets),
        **{f"densities of the {name}": densities(sets, model) for model, (name, _) in MODELS.items()},
        "accuracies": accuracies(sets),
        "anomalies": anomalies(sets),
        "fits": f"Measured on: {where}.\n\n" + fits(sets),
    }


def fill(text, generated):
    """Return the page with each block between the marks of its name."""
    for name, block in generated.items():
        mark = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        text = re.sub(mark, lambda match, block=block: f"{match[1]}\n{block}\n{match[2]}", text, flags=re.S)
    return text


# The picture


def lost(measured):
    """Return the share of variance that a reconstruction loses, within the axis."""
    return np.clip(1 - measured["r2"], LEAST_LOST, 1)


def lead(entry, vae):
    """Return by how many nats per column a density is above FactorAnalysis', within the axis."""
    nats = (vae["density"] - vae["rivals"]["factor_analysis"]) / entry["columns"]
    return np.clip(nats, -MOST_NATS, MOST_NATS)


def draw_set(axes, y, entry):
    """Draw one row of the picture: the linear models in gray, and each VAE in its color."""
    pca = entry["linear"]["pca"]
    gray = {"color": "0.5", "marker": "o", "s": 26}
    axes[0].scatter(lost(pca), y, **gray)
    axes[1].scatter(0, y, **gray)
    if "logistic" in pca:
        axes[2].scatter(pca["logistic"], y, **gray)
    for model, vae in entry["models"].items():
        if "error" in vae:
            continue
        style = {"color": MODELS[model][1], "marker": "D", "s": 16, "zorder": 3}
        axes[0].scatter(lost(vae), y, **style)
        if vae["density"] is not None:
            axes[1].scatter(lead(entry, vae), y, **style)
        if "logistic" in pca:
            axes[2].scatter(vae["logistic"], y, **style)


def plot(sets, path):
    """Draw reconstruction, density and accuracy, each set a row. It is made to be read at the width of a phone."""
    figure, axes = plt.subplots(
        1, 3, figsize=(4.2, 1.6 + 0.27 * len(sets)), sharey=True, layout="constrained", width_ratios=(1, 1, 0.8)
    )
    for y, entry in enumerate(sets.values()):
        if y % 2 == 0:
            for ax in axes:
                ax.axhspan(y - 0.5, y + 0.5, color="0.95", zorder=0)
        draw_set(axes, y, entry)
    axes[0].set(xscale="log", xlim=(LEAST_LOST / 1.5, 1.5), xlabel="variance lost\n(less is better)")
    axes[0].set_yticks(range(len(sets)), list(sets))
    axes[0].set(ylim=(len(sets) - 0.5, -0.5))
    axes[1].set(xlim=(-1.1 * MOST_NATS, 1.1 * MOST_NATS), xlabel="log density over\nFA's, per column")
    axes[2].set(xlim=(0.3, 1.05), xlabel="accuracy")
    for ax in axes:
        ax.tick_params(labelsize=8)
        ax.xaxis.label.set_size(8)
    models = measured_models(sets)
    handles = [plt.Line2D([], [], ls="", marker="o", color="0.5", label="PCA, FactorAnalysis (FA)")]
    handles += [plt.Line2D([], [], ls="", marker="D", ms=4, color=MODELS[m][1], label=models[m]) for m in models]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def write(content, page, folder):
    """Write panel.md and images/panel.png, given the page with the marks."""
    (folder / "panel.md").write_text(fill(page, blocks(content)))
    (folder / "images").mkdir(exist_ok=True)
    plot(content["sets"], folder / "images" / "panel.png")
