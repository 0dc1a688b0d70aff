"""Compare representations in two data regimes: pixels, PCA and both VAEs with their defaults, under three classifiers.

In the large regime everything is trained on the larger part of the data and tested on the smaller, in the small regime
the other way round; every representation is fitted to the training part of its regime alone. All of it is one grid
search of scikit-learn. The script prints the table of test accuracies, and saves it and the figures.

    python examples/study/regime_comparison.py                                  # digits, a minute
    python examples/study/regime_comparison.py --dataset fashion-mnist          # 70,000 images, an hour or so
    python examples/study/regime_comparison.py --dataset fashion-mnist --full   # the whole study, many hours; resumable
    python examples/study/regime_comparison.py --dataset fashion-mnist --full --only "study" --jobs 8    # a part of it
"""

import argparse
import sys
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from sklearn.callback import ProgressBar
from sklearn.exceptions import ConvergenceWarning

from skvae.callbacks import SampleMonitor
from skvae.model_selection import regime_search, regime_table

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the package `study` lies

from study import figures, full, models, report


def in_words(table):
    """Return what one sees in the table, in two sentences."""
    n_cells = table.shape[1]

    def beside(gain, other):
        points = f"{abs(gain.mean()):.1f} points {'ahead of' if gain.mean() > 0 else 'behind'} {other}"
        return f"{points}, and ahead in {(gain > 0).sum()} of {n_cells} cells"

    over_pca = 100 * (table.loc[list(models.REPRESENTATIONS[2:])] - table.loc["pca"])
    vaes = "; ".join(f"the {figures.title(name)} is {beside(gain, 'PCA')}" for name, gain in over_pca.iterrows())
    lead = 100 * (table.loc["pixels"] - table.drop("pixels").max())
    return f"On average {vaes}.\nPixels are {beside(lead, 'the best of these')}."


def compare(options):
    """Fit and score everything in one search, print the table, and save it and the figures."""
    X, y, cv = models.load(options.dataset)
    transformers = {
        name: models.representation(name, options.dataset, options.epochs, options.seed)
        for name in models.REPRESENTATIONS
    }
    classifiers = models.classifiers(options.classifier_epochs, options.seed)
    search = regime_search(transformers, classifiers, cv=cv)
    monitor = SampleMonitor(random_state=options.seed)
    search.set_callbacks(ProgressBar(max_propagation_depth=0), monitor).fit(X, y)
    table = regime_table(search)
    print(table.round(4).to_string())
    print(in_words(table))
    table.to_csv(options.output / "table.csv")
    series = {name: table.loc[name].to_dict() for name in table.index}
    figures.accuracies(options.output / "accuracies.png", series, models.REGIMES)

    train, test = next(cv.split(X, y))  # of the large regime
    vaes = {name: models.fitted(search, name, X[train], y[train]) for name in models.REPRESENTATIONS[2:]}
    pca = models.fitted(search, "pca", X[train], y[train])
    highest = models.HIGHEST[options.dataset]
    # Each VAE was fitted in the large regime first.
    seen = dict(zip(vaes, monitor.get_samples()[::2], strict=True))
    figures.samples_by_epoch(options.output / "samples_by_epoch.png", seen, highest)
    drawn = {figures.title(name): vae.sample(40, random_state=options.seed) for name, vae in vaes.items()}
    figures.samples(options.output / "samples.png", [{"real images": X[test], **drawn}], highest)
    reconstructed = {
        name: model.inverse_transform(model.transform(X[test])) for name, model in {"pca": pca, **vaes}.items()
    }
    figures.reconstructions(options.output / "reconstructions.png", X[test], reconstructed, highest)
    figures.elbo(options.output / "elbo.png", {(name, "large"): vae.history_ for name, vae in vaes.items()})
    cells = [(name, regime) for name in transformers for regime in models.REGIMES]
    for name, classifier in classifiers.items():
        curves = dict(zip(cells, models.curves(classifier).values(), strict=True))
        figures.classifier_curves(options.output / f"curves_{name}.png", name, curves)


def main():
    """Run the comparison that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dataset", choices=models.HIGHEST, default="digits")
    parser.add_argument("--full", action="store_true", help="all seeds, variants, protocols and measures")
    parser.add_argument("--only", default="", help="of the full run, the pieces that this regular expression finds")
    parser.add_argument("--jobs", type=int, default=1, help="processes of the full run (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="of each VAE (default: what it has by itself)")
    parser.add_argument("--classifier-epochs", type=int, default=20, help="of each CNN (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, help="folder for all that comes out (default: examples/output/DATASET)")
    options = parser.parse_args()
    options.output = options.output or Path("examples/output") / (options.dataset + "-full" * options.full)
    options.output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", ConvergenceWarning)  # on pixels, logistic regression takes thousands of iterations
    warnings.filterwarnings("ignore", message=".*does not support callbacks")  # PCA has no epochs to report
    if options.full:
        if options.dataset == "fashion-mnist":
            full.take_over(report.EARLIER, options)
        full.run(options)
        if options.dataset == "fashion-mnist" and not options.only:
            report.write(options)
    else:
        compare(options)
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()
