"""The benchmark of imputation as tables of its page."""

from statistics import median

from panel_report import fill, value
from report import table

RIVALS = ("KNNImputer", "IterativeImputer")

# The imputer at its defaults, and the VAE with as many components as the panel has for a table.
IMPUTER, VAE = "VAEImputer", "NormalVAETransformer"

IMPUTERS = ("SimpleImputer", *RIVALS, IMPUTER, VAE)

# The tables whose rows are generated.
GENERATED = ("barometers", "sensors", "one-hot", "percentages", "broken entry", "skewed")

# Times the error of the better rival, an error that is no worse.
MARGIN = 1.05

# The coverage that is asked of 90 % intervals, and times a fit of complete rows, the longest fit.
LEAST_COVERAGE, MOST_COVERAGE, LONGEST_FIT = 0.85, 0.95, 1.15

MISSED = " ↓"


def of(entry, imputer):
    """Return what was measured of an imputer on a table; nothing when it was not measured."""
    return entry["imputers"].get(imputer, {})


def best_rival(entry):
    """Return the smaller error of the two rivals."""
    return min(of(entry, rival)["rmse"] for rival in RIVALS)


def holds(entry, imputer):
    """Return whether an imputer is no worse than the better rival."""
    return of(entry, imputer)["rmse"] <= MARGIN * best_rival(entry)


def leads(entry, imputer):
    """Return whether an imputer is better than both rivals."""
    return of(entry, imputer)["rmse"] < best_rival(entry)


def slowdown(entry):
    """Return how much longer a fit takes with missing entries than without."""
    measured = of(entry, VAE)
    return measured["seconds_fit"] / measured["seconds_fit_complete"]


def covers(entry):
    """Return whether 90 % intervals hold about as many of the hidden entries."""
    return LEAST_COVERAGE <= of(entry, VAE)["coverage"] <= MOST_COVERAGE


def is_more_accurate(entry):
    """Return whether logistic regression does better on latents than on PCA of rows filled with means."""
    return of(entry, VAE)["logistic"] > of(entry, "SimpleImputer")["logistic"]


def share(held):
    """Return of how many something holds, as text."""
    return f"{sum(held)} of {len(held)}"


def summary(sets):
    """Return the table of what is reached."""
    with_errors = [entry for entry in sets.values() if {IMPUTER, VAE, *RIVALS} <= set(entry["imputers"])]
    of_vae = {name: entry for name, entry in sets.items() if VAE in entry["imputers"]}
    labeled = [entry for entry in of_vae.values() if "logistic" in of(entry, VAE)]
    generated = [entry for name, entry in of_vae.items() if name in GENERATED]
    rows = [
        [text, asked, *(share([reached(entry, imputer) for entry in with_errors]) for imputer in (IMPUTER, VAE))]
        for text, asked, reached in (
            ("error at most 1.05 times that of the better rival", "all", holds),
            ("error below those of both rivals", "more than half", leads),
        )
    ]
    ratio = f"{median(map(slowdown, of_vae.values())):.2f}" if of_vae else ""
    rows += [
        [
            "85 to 95 % of the entries within 90 % intervals, on generated tables",
            "all",
            "",
            share([*map(covers, generated)]),
        ],
        ["accuracy of logistic regression above PCA's", "all", "", share([*map(is_more_accurate, labeled)])],
        ["time of a fit over that of complete rows, median", f"at most {LONGEST_FIT}", "", ratio],
    ]
    return table(["on held-out rows", "asked of", IMPUTER, VAE], rows)


def errors(sets):
    """Return the table of errors."""
    rows = []
    for name, entry in sets.items():
        cells = [value(of(entry, imputer), "rmse") for imputer in IMPUTERS]
        for place, imputer in enumerate(IMPUTERS):
            if imputer in (IMPUTER, VAE) and of(entry, imputer) and not holds(entry, imputer):
                cells[place] += MISSED
        rows.append([name, f"{entry['rows']:,} × {entry['columns']:,}, {entry['n_components']}", *cells])
    return table(["RMSE", "rows × columns, components", *IMPUTERS], rows)


def details(sets):
    """Return the table of what else is measured of the VAE."""
    rows = []
    for name, entry in sets.items():
        vae, simple = of(entry, VAE), of(entry, "SimpleImputer")
        pca = f"{value(simple, 'logistic')} ± {value(simple, 'logistic_error')}" if "logistic" in simple else ""
        ratio = f"{slowdown(entry):.2f}" if vae else ""
        rows.append([name, value(vae, "coverage", ".2f"), value(vae, "logistic"), pca, ratio])
    header = [
        "",
        "within 90 % intervals",
        "accuracy on latents",
        "on PCA, standard error",
        "time of a fit over complete",
    ]
    return table(header, rows)


def seconds(sets):
    """Return the table of time."""
    rows = [
        [name, *(value(of(entry, imputer), "seconds", ".2g") for imputer in IMPUTERS)] for name, entry in sets.items()
    ]
    return table(["seconds to fit and to fill", *IMPUTERS], rows)


def blocks(content):
    """Return what is generated of the page, by name."""
    sets = content["sets"]
    where = ", ".join(f"{key} {name}" for key, name in content["machine"].items() if name is not None)
    return {
        "summary": summary(sets),
        "errors": errors(sets),
        "details": details(sets),
        "seconds": f"Measured on: {where}.\n\n" + seconds(sets),
    }


def write(content, page, path):
    """Write the page, given its text with the marks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(fill(page, blocks(content)))
