"""The displays show what they say they show."""

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import Normalize
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import NormalVAETransformer
from skvae.callbacks import SampleMonitor
from skvae.classifiers import SimpleCNNClassifier
from skvae.inspection import LatentDisplay, ReconstructionDisplay, SamplesDisplay, TrainingCurveDisplay

from conftest import make

Y = load_digits().target[:300]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def tile(display, row, column, height=8, width=8):
    """Return one image of a montage."""
    montage = np.ma.getdata(display.im_.get_array())
    top, left = row * (height + 2) + 1, column * (width + 2) + 1
    return montage[top : top + height, left : left + width]


def test_samples_are_those_of_the_model(fitted):
    display = SamplesDisplay.from_estimator(fitted, n_samples=7, random_state=3)
    expected = fitted.sample(7, random_state=3)
    np.testing.assert_array_equal(display.samples, expected)
    for i in range(7):  # in rows of three
        np.testing.assert_allclose(tile(display, *divmod(i, 3)), expected[i].reshape(8, 8))
    assert display.im_.get_array().shape == (30, 30)
    assert np.isnan(np.ma.filled(display.im_.get_array().astype(float), np.nan)[20:, 10:]).all()
    assert display.figure_ is display.ax_.figure


def test_colors_and_shapes(digits):
    images = np.random.RandomState(0).uniform(0, 255, (5, 24))
    display = SamplesDisplay(images, 5, image_shape=(2, 4, 3)).plot()
    first = tile(display, 0, 0, 2, 4)
    np.testing.assert_allclose(first, (images[0].reshape(2, 4, 3) - images.min()) / np.ptp(images), atol=1e-6)
    # Limits and norms are those that are asked for.
    first = tile(SamplesDisplay(images, 5, image_shape=(2, 4, 3)).plot(vmin=0, vmax=510), 0, 0, 2, 4)
    np.testing.assert_allclose(first, images[0].reshape(2, 4, 3) / 510, atol=1e-6)
    assert SamplesDisplay(digits[:4], 2).plot(norm=Normalize(0, 99)).im_.norm.vmax == 99
    vae = make(NormalVAETransformer, image_shape=(4, 16)).fit(digits)
    assert SamplesDisplay.from_estimator(vae, n_samples=1).im_.get_array().shape == (6, 18)


@pytest.mark.parametrize(
    ("given", "low", "high"), [({"vmin": None}, 1, 47), ({"vmax": None}, 1, 47), ({"vmin": None, "vmax": 99}, 1, 99)]
)
def test_limits_of_none_are_those_of_the_images(given, low, high):
    images = np.arange(48.0).clip(1).reshape(1, 48)
    gray = SamplesDisplay(images, 1, image_shape=(6, 8)).plot(**given).im_
    assert gray.get_clim() == (low, high)
    colors = tile(SamplesDisplay(images, 1, image_shape=(4, 4, 3)).plot(**given), 0, 0, 4, 4)
    np.testing.assert_allclose(colors.ravel(), (images[0] - low) / (high - low))


def test_limits_beyond_the_type_of_the_pixels():
    images = np.arange(48, dtype=np.uint8).reshape(1, 48)
    first = tile(SamplesDisplay(images, 1, image_shape=(4, 4, 3)).plot(vmin=-1), 0, 0, 4, 4)
    np.testing.assert_allclose(first.ravel(), np.arange(1, 49) / 48)


def test_samples_by_epoch(digits):
    monitor = SampleMonitor(4, epochs=(1, 3), random_state=7)
    for max_iter in (3, 1):
        make(NormalVAETransformer, max_iter=max_iter).set_callbacks(monitor).fit(digits)
    first, last = monitor.get_samples()
    display = SamplesDisplay.from_monitor(monitor, fit=0)
    for row, epoch in enumerate((1, 3)):
        for column in range(4):
            np.testing.assert_allclose(tile(display, row, column), first[epoch][column].reshape(8, 8))
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["epoch 1", "epoch 3"]
    np.testing.assert_array_equal(SamplesDisplay.from_monitor(monitor).samples, last[1])


def test_originals_stand_above_reconstructions(fitted, digits):
    display = ReconstructionDisplay.from_estimator(fitted, digits[:5])
    reconstructed = fitted.inverse_transform(fitted.transform(digits[:5]))
    for i in range(5):
        np.testing.assert_allclose(tile(display, 0, i), digits[i].reshape(8, 8))
        np.testing.assert_allclose(tile(display, 1, i), reconstructed[i].reshape(8, 8))
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["original", "reconstruction"]


def test_any_transformer_that_inverts_will_do(digits):
    pipeline = make_pipeline(StandardScaler(), PCA(5)).fit(digits)
    display = ReconstructionDisplay.from_estimator(pipeline, digits[:3], cmap="viridis")
    assert display.reconstructions.shape == (3, 64)
    assert display.im_.get_cmap().name == "viridis"


def test_training_curves_of_a_vae(estimator_class, digits):
    vae = make(estimator_class).fit(digits, X_val=digits[:20])
    display = TrainingCurveDisplay.from_estimator(vae)
    drawn = {line.get_label(): list(line.get_ydata()) for line in display.lines_}
    assert drawn == {
        "ELBO": vae.history_["elbo"],
        "validation ELBO": vae.history_["validation_elbo"],
        "log likelihood": vae.history_["log_likelihood"],
        "KL": vae.history_["kl"],
    }
    assert all(list(line.get_xdata()) == [1, 2, 3, 4] for line in display.lines_)
    assert [line.get_label() for line in display.right_ax_.lines] == ["KL"]


def test_training_curves_of_a_classifier(digits):
    classifier = SimpleCNNClassifier(max_iter=2).fit(digits, Y)
    _, ax = plt.subplots()
    display = TrainingCurveDisplay.from_estimator(classifier, ax=ax, linewidth=3)
    assert {line.get_label(): list(line.get_ydata()) for line in display.lines_} == classifier.history_
    assert display.ax_ is ax
    assert display.lines_[0].get_linewidth() == 3


@pytest.mark.parametrize(
    ("short", "long"), [({"ls": ":"}, {"linestyle": ":"}), ({"c": "k", "lw": 3}, {"color": "k", "linewidth": 3})]
)
def test_training_curves_take_short_names_of_arguments(short, long, fitted):
    drawn, expected = (TrainingCurveDisplay.from_estimator(fitted, **kwargs).lines_ for kwargs in (short, long))
    assert len(drawn) == len(expected) == 3
    for line, same in zip(drawn, expected, strict=True):
        for name in ("linestyle", "color", "linewidth", "label"):
            assert plt.getp(line, name) == plt.getp(same, name)
    (name,) = long.keys() & {"linestyle", "color"}
    assert {plt.getp(line, name) for line in drawn} == {long[name]}
    with pytest.raises(TypeError, match="aliases of one another"):
        TrainingCurveDisplay.from_estimator(fitted, c="k", color="k")


def test_plane_without_data_spans_the_prior(fitted):
    display = LatentDisplay.from_estimator(fitted, components=(2, 0), n_points=3)
    z = norm.ppf(0.95)
    expected = [[x, y] for y in (z, 0, -z) for x in (-z, 0, z)]
    np.testing.assert_allclose(display.points, expected, atol=1e-12)
    Z = np.array([[y, 0, x] for x, y in expected], dtype=np.float32)
    np.testing.assert_allclose(display.images, fitted.inverse_transform(Z), rtol=1e-5)
    np.testing.assert_allclose(tile(display, 0, 2), display.images[2].reshape(8, 8))
    assert display.ax_.get_xlabel() == "component 2"


def test_plane_without_data_spans_a_mixture(digits):
    vae = make(NormalVAETransformer, prior="mixture", max_iter=10).fit(digits)
    prior = vae.prior_
    assert len(prior.weights_) > 1
    display = LatentDisplay.from_estimator(vae, components=(2, 0), n_points=3)
    horizontal, vertical = display.points[:3, 0], display.points[::3, 1][::-1]
    for component, quantiles in ((2, horizontal), (0, vertical)):
        stds = np.sqrt(prior.covariances_[:, component, component])
        levels = norm.cdf((quantiles[:, None] - prior.means_[:, component]) / stds) @ prior.weights_
        np.testing.assert_allclose(levels, [0.05, 0.5, 0.95], atol=1e-4)
    Z = np.array([[y, prior.weights_ @ prior.means_[:, 1], x] for x, y in display.points], dtype=np.float32)
    np.testing.assert_allclose(display.images, vae.inverse_transform(Z), rtol=1e-5)


def test_plane_with_data_spans_its_latents(digits):
    pca = PCA(4).fit(digits)
    display = LatentDisplay.from_estimator(pca, digits, n_points=2)
    latents = pca.transform(digits)
    low, high = np.quantile(latents[:, :2], [0.05, 0.95], axis=0)
    np.testing.assert_allclose(display.points, [[low[0], high[1]], high, low, [high[0], low[1]]])


def test_plane_of_a_component_that_is_mostly_constant(digits):
    class Constant(PCA):
        def transform(self, X):
            return super().transform(X) * [0, 1]

    display = LatentDisplay.from_estimator(Constant(2).fit(digits), digits, n_points=4)
    assert display.im_.get_array().shape == (40, 40)
    np.testing.assert_allclose(tile(display, 3, 1), display.images[13].reshape(8, 8))


def test_scatter_by_label(fitted, digits):
    display = LatentDisplay.from_estimator(fitted, digits, Y, kind="scatter", components=(1, 2))
    latents = fitted.transform(digits)[:, [1, 2]]
    for label, points in enumerate(display.scatter_):
        np.testing.assert_allclose(points.get_offsets(), latents[label == Y])
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == [str(i) for i in range(10)]
    assert len(LatentDisplay.from_estimator(fitted, digits, kind="scatter").scatter_) == 1
    missing = LatentDisplay.from_estimator(fitted, digits, np.where(Y == 3, np.nan, Y), kind="scatter")
    assert sum(len(points.get_offsets()) for points in missing.scatter_) == len(digits)


@pytest.mark.parametrize("labels", [None, Y])
def test_scatter_takes_other_names_of_arguments(labels, fitted, digits):
    for settings in ({"s": 9, "c": "red"}, {"sizes": 9, "color": "red"}, {"sizes": [9], "fc": "red"}):
        display = LatentDisplay.from_estimator(fitted, digits, labels, kind="scatter", **settings)
        assert len(display.scatter_) == (1 if labels is None else 10)
        for points in display.scatter_:
            assert list(points.get_sizes()) == [9]
            np.testing.assert_array_equal(points.get_facecolor(), [[1, 0, 0, 0.6]])
    with pytest.raises(TypeError, match="aliases of one another"):
        LatentDisplay.from_estimator(fitted, digits, kind="scatter", s=4, sizes=[9])


def test_errors(fitted, digits):
    with pytest.raises(ValueError, match="kind must be 'plane' or 'scatter'; got 'cube'"):
        LatentDisplay.from_estimator(fitted, kind="cube")
    with pytest.raises(ValueError, match="kind='scatter' needs X"):
        LatentDisplay.from_estimator(fitted, kind="scatter")
    for components in [(0, 3), (0, 0), (0,), (-1, 0), 0, (0.0, 1.0), (True, False)]:
        with pytest.raises(ValueError, match="components must be two different ones of the model's 3, counted from 0"):
            LatentDisplay.from_estimator(fitted, components=components)
    with pytest.raises(ValueError, match="n_samples must be a positive integer; got 0"):
        SamplesDisplay.from_estimator(fitted, n_samples=0)
    with pytest.raises(ValueError, match=r"Rows of 7 features cannot be shown as images with image_shape=None. Give"):
        SamplesDisplay(digits[:2, :7], 2).plot()
    with pytest.raises(ValueError, match=r"image_shape must be \(height, width\) .* got 8"):
        SamplesDisplay(digits[:2], 2, image_shape=8).plot()
    with pytest.raises(ValueError, match=r"must have the same shape; got \(5, 64\) and \(3, 64\)"):
        ReconstructionDisplay(digits[:5], digits[:3]).plot()
    with pytest.raises(NotFittedError):
        TrainingCurveDisplay.from_estimator(NormalVAETransformer())
    with pytest.raises(ValueError, match="PCA has no history_"):
        TrainingCurveDisplay.from_estimator(PCA().fit(digits))
    with pytest.raises(ValueError, match="history must hold some of elbo"):
        TrainingCurveDisplay({}).plot()
