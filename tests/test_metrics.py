"""The measures against closed forms and against other implementations."""

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mean_squared_error

from skvae import NormalVAETransformer
from skvae.classifiers import MultilayerCNNClassifier
from skvae.metrics import (
    classification_accuracy_score,
    classifier_frechet_distance,
    frechet_distance,
    reconstruction_mse,
    reconstruction_ssim,
    sharpness,
)

from conftest import make

X, y = load_digits(return_X_y=True)


class Perfect:
    """Reconstructs what it is given."""

    def transform(self, X):
        return X

    inverse_transform = transform


def test_mse_against_scikit_learn(fitted, digits):
    reconstructed = fitted.inverse_transform(fitted.transform(digits))
    assert reconstruction_mse(fitted, digits) == pytest.approx(mean_squared_error(digits, reconstructed))
    assert reconstruction_mse(Perfect(), digits) == 0
    # All components of a PCA but some: what is lost is the variance of those left out.
    pca = PCA(10).fit(X)
    assert reconstruction_mse(pca, X) == pytest.approx(
        (X.var(axis=0).sum() - pca.explained_variance_.sum() * 1796 / 1797) / 64
    )


def test_mse_of_bytes_does_not_wrap_around():
    class Bytes(Perfect):
        def inverse_transform(self, X):
            return X + np.uint8(1)

    assert reconstruction_mse(Bytes(), np.zeros((2, 16), np.uint8)) == 1


def test_ssim_of_one_window_is_the_formula():
    random_state = np.random.RandomState(0)
    a, b = random_state.uniform(0, 1, (2, 49))

    class Model(Perfect):
        def inverse_transform(self, Z):
            return b[None]

    covariance = np.cov(a, b)
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * a.mean() * b.mean() + c1) * (2 * covariance[0, 1] + c2)
    expected /= (a.mean() ** 2 + b.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2)
    assert reconstruction_ssim(Model(), a[None], data_range=(0, 1)) == pytest.approx(expected)


def test_ssim_orders_models():
    assert reconstruction_ssim(Perfect(), X[:50]) == pytest.approx(1)
    coarse, fine = (reconstruction_ssim(PCA(n).fit(X), X[:50]) for n in (5, 30))
    assert coarse < fine < 1


def test_ssim_of_what_is_hard_to_compare(digits):
    constant = np.ones((3, 64))
    assert reconstruction_ssim(Perfect(), constant) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 7 x 7 pixels; got 4 x 16"):
        reconstruction_ssim(make(NormalVAETransformer, image_shape=(4, 16)).fit(digits), digits[:5])
    for data_range in (1, (1, 0), (0, 0)):
        with pytest.raises(ValueError, match="data_range must be"):
            reconstruction_ssim(Perfect(), digits[:5], data_range=data_range)


def test_frames_with_names(digits):
    frame = pd.DataFrame(digits).add_prefix("pixel")
    pca = PCA(5).set_output(transform="pandas").fit(frame)
    assert reconstruction_mse(pca, frame) == pytest.approx(reconstruction_mse(PCA(5).fit(digits), digits))
    assert 0 < reconstruction_ssim(pca, frame[:10]) < 1
    assert sharpness(frame) == sharpness(digits)


def test_reconstructions_of_another_shape(digits):
    class Mean(Perfect):
        def inverse_transform(self, Z):
            return Z.mean(axis=1, keepdims=True)

    with pytest.raises(ValueError, match=r"must have the shape of X, \(300, 64\); got \(300, 1\)"):
        reconstruction_mse(Mean(), digits)


def test_sharpness_of_waves():
    # The Laplacian of a wave is the wave times -(2 - 2 cos w); a whole number of periods has variance a^2 / 2.
    t = np.arange(64)
    wave = 3 * np.cos(2 * np.pi * 8 * (t + 0.5) / 64)  # symmetric about the borders, as their replication is
    image = np.tile(wave, (64, 1)).ravel()
    expected = 4.5 * (2 - 2 * np.cos(2 * np.pi * 8 / 64)) ** 2
    assert sharpness(image[None]) == pytest.approx(expected, rel=0.01)
    assert sharpness(image[None], image_shape=(64, 64, 1)) == pytest.approx(expected, rel=0.01)


def test_sharpness_is_lost_by_blurring_and_ignores_brightness():
    images = X.reshape(-1, 8, 8)
    blurred = gaussian_filter(images, (0, 1, 1)).reshape(X.shape)
    assert sharpness(blurred) < sharpness(X) / 4
    assert sharpness(X + 100) == pytest.approx(sharpness(X))
    assert sharpness(np.ones((3, 64))) == 0


def test_frechet_distance_between_known_normal_distributions():
    # Points with exactly the moments that are asked for.
    half = np.random.RandomState(0).normal(size=(50, 2))
    points = np.concatenate([half, -half])
    white = points @ np.linalg.inv(np.linalg.cholesky(np.cov(points, rowvar=False))).T
    a, b = white * [1, 2], white * [3, 1] + [4, 0]
    assert frechet_distance(a, b) == pytest.approx(16 + (1 - 3) ** 2 + (2 - 1) ** 2)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_against_the_matrix_square_root():
    random_state = np.random.RandomState(0)
    a = random_state.normal(size=(200, 5)) @ random_state.normal(size=(5, 5))
    b = random_state.normal(size=(300, 5)) @ random_state.normal(size=(5, 5)) + 1
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.square(a.mean(0) - b.mean(0)).sum()
    expected += np.trace(covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_frechet_distance_of_singular_covariances():
    a = np.zeros((10, 3))
    a[:, 0] = norm.ppf(np.linspace(0.05, 0.95, 10))
    b = a + [0, 2, 0]
    assert frechet_distance(a, b) == pytest.approx(4)
    assert frechet_distance(a[:, :1], b[:, :1]) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_of_what_cannot_be_compared():
    with pytest.raises(ValueError, match="features_a has 3 features and features_b 2"):
        frechet_distance(np.zeros((4, 3)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        frechet_distance(np.zeros((1, 3)), np.zeros((4, 3)))


def test_distance_stands_beside_its_floor():
    scaled = X / 16
    classifier = MultilayerCNNClassifier(max_iter=10, random_state=0).fit(scaled[:900], y[:900])
    noise = np.random.RandomState(0).uniform(size=(900, 64))
    real = classifier_frechet_distance(classifier, scaled[:900], scaled[:900], scaled[900:])
    assert real.distance == pytest.approx(real.floor)
    noisy = classifier_frechet_distance(classifier, noise, scaled[:900], scaled[900:])
    assert noisy.floor == pytest.approx(real.floor)
    assert noisy.distance > 5 * noisy.floor
    # Fewer images are compared with as few real ones.
    few = classifier_frechet_distance(classifier, noise[:300], scaled[:900], scaled[900:], random_state=0)
    assert few.floor > real.floor


class Embedding:
    """Takes features as they are, and counts the rows."""

    def __init__(self):
        self.n_rows = []

    def embed(self, X):
        self.n_rows.append(len(X))
        return np.asarray(X)


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame, np.ndarray.tolist])
def test_distance_and_floor_are_of_as_many_rows(kind):
    real = np.random.RandomState(0).normal(size=(4000, 20))
    same, train, test = (kind(part) for part in np.split(real, [1000, 1100]))
    for images, trained_on in ((same, train), (train, same)):
        embedding = Embedding()
        distance, floor = classifier_frechet_distance(embedding, images, trained_on, test, random_state=0)
        assert embedding.n_rows == [2900, 100, 100]
        assert distance == pytest.approx(floor, rel=0.2)
    again = classifier_frechet_distance(Embedding(), same, train, test, random_state=0)
    assert again == classifier_frechet_distance(Embedding(), same, train, test, random_state=0)
    assert again != classifier_frechet_distance(Embedding(), same, train, test, random_state=1)
    # All of X counts where there are enough training rows.
    distance, _ = classifier_frechet_distance(Embedding(), train, same, test)
    assert distance == frechet_distance(train, test)


def test_classification_accuracy_score():
    classifier = LogisticRegression(max_iter=3000)
    real = classification_accuracy_score(classifier, X[:900], y[:900], X[900:], y[900:])
    assert real == LogisticRegression(max_iter=3000).fit(X[:900], y[:900]).score(X[900:], y[900:])
    pca = PCA(3, random_state=0).fit(X[:900])
    reconstructed = pca.inverse_transform(pca.transform(X[:900]))
    assert classification_accuracy_score(classifier, reconstructed, y[:900], X[900:], y[900:]) < real
    assert not hasattr(classifier, "coef_")
