"""The targets of the panel: what a VAE at its defaults is to reach beside the linear models.

Each target is True, False, or None where it does not apply to a set.
"""

CLASSIFIERS = {"logistic": "logistic regression", "neighbors": "15 neighbors"}

# How far below PCA's R² is not worse, and the share of FactorAnalysis' density that is.
R2_MARGIN, DENSITY_MARGIN = 0.01, 0.01


def r2_holds(entry, vae):
    """Return whether R² is at least PCA's but for a margin."""
    return vae["r2"] >= entry["linear"]["pca"]["r2"] - R2_MARGIN


def r2_leads(entry, vae):
    """Return whether R² is ahead of PCA's."""
    return vae["r2"] > entry["linear"]["pca"]["r2"]


def density_holds(entry, vae):
    """Return whether the log density is at least FactorAnalysis', and no row is outside the support."""
    if vae["density"] is None or vae["rows_outside"]:
        return False
    rival = vae["rivals"]["factor_analysis"]
    return vae["density"] >= rival - DENSITY_MARGIN * abs(rival)


def accuracy_holds(classifier):
    """Return the target that a classifier does as well as on PCA, within the larger standard error of both."""

    def target(entry, vae):
        pca = entry["linear"]["pca"]
        if classifier not in pca:
            return None
        error = max(pca[f"{classifier}_error"], vae[f"{classifier}_error"])
        return vae[classifier] >= pca[classifier] - error

    return target


def accuracy_leads(classifier):
    """Return the target that a classifier does better than on PCA."""

    def target(entry, vae):
        pca = entry["linear"]["pca"]
        return vae[classifier] > pca[classifier] if classifier in pca else None

    return target


def area_holds(entry, vae):
    """Return whether anomalies are found at least as well as by the best rival."""
    return vae["auc"] >= max(entry["linear"]["auc"].values()) if "auc" in vae else None


def no_warning(entry, vae):
    """Return whether the fit had nothing to warn of."""
    return not vae["warnings"]


# Names of the targets that are asked of all sets.
R2 = "R² at least PCA's - 0.01"
DENSITY = "log density at least FactorAnalysis', within 1 %"
ACCURACY = {key: f"accuracy of {name} at least PCA's, within a standard error" for key, name in CLASSIFIERS.items()}

# Each target: of how many sets it is asked, and the function.
TARGETS = {
    R2: ("all", r2_holds),
    "R² ahead of PCA's": ("two thirds", r2_leads),
    DENSITY: ("all", density_holds),
    **{target: ("all", accuracy_holds(key)) for key, target in ACCURACY.items()},
    **{f"accuracy of {name} ahead of PCA's": ("half", accuracy_leads(key)) for key, name in CLASSIFIERS.items()},
    "AUC of anomalies at least the best rival's": ("two thirds", area_holds),
    "fit without a warning": ("all", no_warning),
}


def reached(target, entry, vae):
    """Return whether a model reaches a target on a set: not where its fit failed."""
    return False if "error" in vae else TARGETS[target][1](entry, vae)


def counts(sets, model):
    """Return for each target on how many sets it is reached, and to how many it applies."""
    entries = [(entry, entry["models"][model]) for entry in sets.values() if model in entry["models"]]
    found = {name: [reached(name, *pair) for pair in entries] for name in TARGETS}
    return {name: (sum(map(bool, held)), sum(one is not None for one in held)) for name, held in found.items()}
