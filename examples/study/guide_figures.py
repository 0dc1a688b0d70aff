"""Draw the figures of the user guide, and print the numbers behind them.

    python examples/study/guide_figures.py

They go to docs/images/guide/. Data are scikit-learn's digits.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skvae import NormalVAETransformer
from skvae.distributions import ContinuousBernoulli
from skvae.metrics import reconstruction_mse

DOCS = Path(__file__).parents[2] / "docs"


def continuous_bernoulli():
    """Draw the density, and where the implementation in torch.distributions departs from it in float32."""
    figure, panels = plt.subplot_mosaic([[0, 0], [1, 2]], figsize=(7, 6), layout="constrained")
    axes = [panels[number] for number in range(3)]
    x = torch.linspace(0, 1, 201)
    for logit in (-20.0, -5.0, -1.0, 0.0, 1.0, 5.0):
        axes[0].plot(x, ContinuousBernoulli(logits=torch.tensor(logit)).log_prob(x).exp(), label=f"$e = {logit:g}$")
    axes[0].set(xlabel="$x$", ylabel="density", ylim=(0, 6), title="the density")
    axes[0].legend(fontsize="small")

    logits = torch.linspace(-100, -0.01, 500)
    zero = torch.zeros(())
    theirs = torch.distributions.ContinuousBernoulli(logits=logits).log_prob(zero)
    axes[1].plot(logits, theirs, label="torch")
    axes[1].plot(logits, ContinuousBernoulli(logits=logits).log_prob(zero), "--", label="skvae")
    axes[1].set(xlabel="logit $e$", title="log density at $x = 0$")
    axes[1].legend(fontsize="small")

    probs = torch.linspace(0.497, 0.503, 1201)
    theirs = torch.distributions.ContinuousBernoulli(probs=probs).variance
    axes[2].plot(probs, theirs, label="torch", linewidth=0.8)
    axes[2].plot(probs, ContinuousBernoulli(probs=probs).variance, "--", label="skvae")
    axes[2].set(xlabel="λ", ylim=(-0.3, 0.3), xticks=(0.497, 0.5, 0.503), title="variance near λ = ½")
    axes[2].legend(fontsize="small")
    print(f"torch's variance for λ in 0.497 to 0.503: from {theirs.min():.2f} to {theirs.max():.2f}; it is 1/12")
    return figure


def importance_bound():
    """Draw the importance-weighted bound by the number of draws."""
    X, y = load_digits(return_X_y=True)
    X, X_test = train_test_split(X, test_size=0.25, stratify=y, random_state=0)
    vae = NormalVAETransformer(10, random_state=0).fit(X)
    draws = [2**power for power in range(11)]
    bounds = [vae.score_samples(X_test, n_importance_samples=n).mean() for n in draws]
    figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
    ax.semilogx(draws, bounds, "o-", base=2, label="importance-weighted bound")
    ax.axhline(vae.score(X_test), color="black", linestyle="--", label="ELBO")
    ax.set(xlabel="draws for each row, $K$", ylabel="nats per image")
    ax.legend()
    print(f"ELBO {vae.score(X_test):.2f}; bound", *(f"{n}: {b:.2f}" for n, b in zip(draws, bounds, strict=True)))
    return figure


def latent_size():
    """Draw what the number of components is worth: ELBO, error of reconstructions and active components."""
    X, y = load_digits(return_X_y=True)
    X, X_test = train_test_split(X, test_size=0.25, stratify=y, random_state=0)
    sizes = [1, 2, 4, 7, 10, 15, 20, 30, 40]
    vaes = [NormalVAETransformer(size, random_state=0).fit(X) for size in sizes]
    elbos = [vae.score(X_test) for vae in vaes]
    errors = [reconstruction_mse(vae, X_test) for vae in vaes]
    active = [int((vae.transform(X_test).var(axis=0) > 0.05).sum()) for vae in vaes]
    by_pca = [reconstruction_mse(PCA(size, random_state=0).fit(X), X_test) for size in sizes]
    figure, panels = plt.subplot_mosaic([[0, 0], [1, 2]], figsize=(7, 5.5), layout="constrained")
    axes = [panels[number] for number in range(3)]
    axes[0].plot(sizes, elbos, "o-")
    axes[0].set(xlabel="n_components", ylabel="test ELBO, nats")
    axes[1].plot(sizes, active, "o-")
    axes[1].plot(sizes, sizes, ":", color="gray")
    axes[1].set(xlabel="n_components", ylabel="active components")
    axes[2].plot(sizes, errors, "o-", label="normal VAE")
    axes[2].plot(sizes, by_pca, "o-", label="PCA")
    axes[2].set(xlabel="n_components", ylabel="mean squared error", ylim=(0, None))
    axes[2].legend()
    for row in zip(sizes, elbos, active, errors, by_pca, strict=True):
        print("{} components: ELBO {:.1f}, {} active, MSE {:.2f}, of PCA {:.2f}".format(*row))
    return figure


def main():
    """Draw all figures."""
    folder = DOCS / "images" / "guide"
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (continuous_bernoulli, importance_bound, latent_size):
        draw().savefig(folder / f"{draw.__name__}.png", dpi=110)


if __name__ == "__main__":
    main()
