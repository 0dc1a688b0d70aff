"""Time to quality as tables of its page and as a picture."""

import matplotlib.pyplot as plt
from panel_report import MODELS, fill
from report import table

# What is compared with the earlier defaults: with which of them, and its name in tables.
COMPARED = {
    "normal_vae": ("normal_vae, earlier", "normal VAE"),
    "continuous_bernoulli_vae": ("continuous_bernoulli_vae, earlier", "CB VAE"),
    "continuous_bernoulli_vae, earlier bound": ("continuous_bernoulli_vae, earlier", "CB VAE, `min_scale=1e-6`"),
}

# What trains networks of the earlier defaults, by its name in tables.
LOOPS = {"earlier": "skvae", "plain loop": "a plain loop", "pythae": "pythae"}

# Each measure by its name in tables, and how its values are written.
MEASURES = {"elbo": ("ELBO", ",.1f"), "r2": ("R²", ".3f"), "accuracy": ("accuracy", ".3f")}

# The share of the earlier defaults' time that a fit may take.
TARGET = 0.1

MISSED = " ↓"

# What the picture shows, and in which colors.
SHOWN = "MNIST"
COLORS = {"today": "tab:blue", "earlier": "0.45", "PCA": "tab:orange"}


def compared(sets):
    """Yield each set and what is compared on it, with its points and those of the earlier defaults."""
    for name, entry in sets.items():
        for today, (earlier, _) in COMPARED.items():
            curves = entry["curves"]
            if {today, earlier} <= set(curves):
                yield name, today, curves[today], curves[earlier]


def first(points, measure, value):
    """Return the first point at which a measure is at least `value`; None where there is none."""
    reached = [point for point in points if point[measure] >= value]
    return min(reached, key=lambda point: point["seconds"], default=None)


def duration(seconds):
    """Return seconds as text."""
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"


def time_to(today, earlier, measure):
    """Return the cell of a measure: seconds at the defaults of today, and their share of the earlier ones'."""
    if measure not in earlier[-1]:
        return ""
    point = first(today, measure, earlier[-1][measure])
    if point is None:
        return "not reached" + MISSED
    share = point["seconds"] / earlier[-1]["seconds"]
    return f"{duration(point['seconds'])} ({share:.2g})" + MISSED * (share > TARGET)


def title(name, model, entry):
    """Return the name of a row, with the GPU on which it was measured."""
    gpu = entry["machine"]["gpu"]
    return f"{name}, {COMPARED[model][1]}" + (f", on {gpu}" if gpu else "")


def machines(sets):
    """Return a sentence for each machine, the sets that were measured there and what it is."""
    there = {}
    for name, entry in sets.items():
        where = ", ".join(f"{key} {value}" for key, value in entry["machine"].items() if value is not None)
        there.setdefault(where, []).append(name)
    lines = [f"Measured on: {where}." for where in there]
    if len(there) > 1:
        lines = [f"{'; '.join(names)}: measured on {where}." for where, names in there.items()]
    return "\n\n".join(lines) + "\n"


def times(sets):
    """Return the table of seconds."""
    rows = []
    for name, model, today, earlier in compared(sets):
        end = earlier[-1]
        pca = sets[name]["curves"]["pca"][0]["seconds"]
        cells = [time_to(today, earlier, measure) for measure in MEASURES]
        whole = f"{duration(end['seconds'])}, {end['epochs']} epochs"
        rows.append([title(name, model, sets[name]), whole, *cells, duration(today[-1]["seconds"]), duration(pca)])
    names = (f"to their {name}" for name, _ in MEASURES.values())
    return table(["seconds", "earlier defaults", *names, "the whole fit of today", "PCA"], rows)


def values(sets):
    """Return the table of what is reached."""
    rows = []
    for name, model, today, earlier in compared(sets):
        pca = sets[name]["curves"]["pca"][0]
        cells = []
        for measure, (_, style) in MEASURES.items():
            there = measure in pca
            cells += [format(points[-1][measure], style) if there else "" for points in (earlier, today)]
            if measure != "elbo":
                cells.append(format(pca[measure], style) if there else "")
        rows.append([title(name, model, sets[name]), *cells])
    header = ["", "ELBO, earlier", "today"]
    header += [cell for measure in ("R²", "accuracy") for cell in (f"{measure}, earlier", "today", "PCA")]
    return table(header, rows)


def loops(sets):
    """Return the table of what the earlier defaults and loops beside them end with."""
    rows = []
    for name, entry in sets.items():
        for model, (title, _) in MODELS.items():
            ends = {by: entry["curves"][f"{model}, {by}"][-1] for by in LOOPS if f"{model}, {by}" in entry["curves"]}
            if len(ends) < 2:  # nothing to compare
                continue
            for by, end in ends.items():
                reached = [format(end[key], style) if key in end else "" for key, (_, style) in MEASURES.items()]
                rows.append([f"{name}, {title}", LOOPS[by], end["epochs"], duration(end["seconds"]), *reached])
    return table(["", "trained by", "epochs", "seconds", *(name for name, _ in MEASURES.values())], rows)


def blocks(content):
    """Return what is generated of the page, by name."""
    sets = content["sets"]
    return {
        "seconds to quality": times(sets),
        "quality": f"{values(sets)}\n{machines(sets)}",
        "loops": loops(sets),
    }


def draw(ax, measure, today, earlier, pca):
    """Draw one measure over the seconds of fits, and what the earlier defaults end with as a dotted line."""
    for label, points in (("today", today), ("earlier", earlier)):
        seconds, reached = ([point[key] for point in points] for key in ("seconds", measure))
        ax.plot(seconds, reached, "o-", ms=3.5, lw=1.6, color=COLORS[label])
    ax.axhline(reached[-1], color=COLORS["earlier"], lw=1, ls=":")
    if measure != "elbo":
        ax.axhline(pca[measure], color=COLORS["PCA"], lw=1.2, ls="--")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.tick_params(labelsize=9)
    ax.locator_params(axis="y", nbins=4)
    ax.spines[["top", "right"]].set_visible(False)


def name_lines(ax, measure, today, earlier, pca):
    """Write the name of each line beside it."""
    style = {"fontsize": 10, "textcoords": "offset points"}
    for label, point, offset in (("today", today[-1], (6, -4)), ("earlier", earlier[-1], (2, -28))):
        ha = "left" if label == "today" else "right"
        ax.annotate(label, (point["seconds"], point[measure]), xytext=offset, ha=ha, color=COLORS[label], **style)
    right = (1, pca[measure])
    ax.annotate(
        "PCA", right, xytext=(0, -12), xycoords=("axes fraction", "data"), ha="right", color=COLORS["PCA"], **style
    )


def plot(sets, path):
    """Draw quality over seconds, a model in a column. It is made to be read at the width of a phone."""
    shown = [fits for fits in compared(sets) if fits[0] == SHOWN and fits[1] in MODELS]
    figure, axes = plt.subplots(
        len(MEASURES), len(shown), figsize=(4.2, 5.4), sharex="col", squeeze=False, layout="constrained"
    )
    pca = sets[SHOWN]["curves"]["pca"][0]
    for column, (_, model, today, earlier) in zip(axes.T, shown, strict=True):
        column[0].set_title(MODELS[model][0], fontsize=10)
        for ax, measure in zip(column, MEASURES, strict=True):
            draw(ax, measure, today, earlier, pca)
    for ax, (name, _) in zip(axes[:, 0], MEASURES.values(), strict=True):
        ax.set_ylabel(name, fontsize=10)
    name_lines(axes[1, -1], "r2", *shown[-1][2:], pca)
    where = sets[SHOWN]["machine"]["gpu"] or "one thread"
    figure.supxlabel(f"seconds of a fit to {SHOWN}, {where}", fontsize=10)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def write(content, page, folder):
    """Write performance.md and images/time_to_quality.png, given the page with the marks."""
    (folder / "performance.md").write_text(fill(page, blocks(content)))
    if SHOWN in {name for name, *_ in compared(content["sets"])}:
        (folder / "images").mkdir(exist_ok=True)
        plot(content["sets"], folder / "images" / "time_to_quality.png")
