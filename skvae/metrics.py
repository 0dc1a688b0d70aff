"""Measures of the quality of reconstructions and samples."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.ndimage import convolve1d
from sklearn.base import clone
from sklearn.metrics import accuracy_score
from sklearn.utils import check_array, resample

from skvae._data.checks import check_range, image_dimensions, spawn_seeds

__all__ = [
    "FrechetDistance",
    "classification_accuracy_score",
    "classifier_frechet_distance",
    "frechet_distance",
    "reconstruction_mse",
    "reconstruction_ssim",
    "sharpness",
]


def _as_images(X: ArrayLike, image_shape: Sequence[int] | None) -> NDArray[np.float64]:
    """Return rows of features as images: (n_samples, height, width, channels)."""
    rows: NDArray[np.float64] = check_array(X, dtype=np.float64, input_name="X")
    shape = image_dimensions(image_shape, rows.shape[1])
    if shape is None:
        raise ValueError(
            f"X has {rows.shape[1]} features, which are not a square of at least 4 x 4. Give image_shape=(height, "
            f"width) or (height, width, channels)."
        )
    return rows.reshape(-1, *shape)


def _reconstruct(estimator: Any, X: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the reconstructions of `X`, which must have this shape."""
    reconstructed = np.asarray(estimator.inverse_transform(estimator.transform(X)))
    if reconstructed.shape != shape:
        raise ValueError(f"Reconstructions must have the shape of X, {shape}; got {reconstructed.shape}.")
    return reconstructed


def reconstruction_mse(estimator: Any, X: ArrayLike) -> float:
    """Return the mean squared error of reconstructions.

    Parameters
    ----------
    estimator : estimator
        A fitted model with the methods `transform` and `inverse_transform`.
    X : array-like of shape (n_samples, n_features)
        Data.

    Returns
    -------
    float
        The mean of the squared differences over all entries, in squared units of the data.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from skvae.metrics import reconstruction_mse
    >>> X, _ = load_digits(return_X_y=True)
    >>> reconstruction_mse(PCA(20).fit(X), X) < reconstruction_mse(PCA(10).fit(X), X)
    True
    """
    originals: NDArray[Any] = check_array(X, dtype="numeric")
    errors = np.subtract(_reconstruct(estimator, X, originals.shape), originals, dtype=np.float64)
    return float(np.mean(np.square(errors)))


def reconstruction_ssim(
    estimator: Any,
    X: ArrayLike,
    *,
    image_shape: Sequence[int] | None = None,
    data_range: tuple[float, float] | None = None,
) -> float:
    """Return the mean structural similarity of images and their reconstructions.

    The measure [1]_ compares windows of 7 x 7 pixels. It is computed by scikit-image, which the extra ``metrics``
    installs.

    Parameters
    ----------
    estimator : estimator
        A fitted model with the methods `transform` and `inverse_transform`.
    X : array-like of shape (n_samples, n_features)
        Images of at least 7 x 7 pixels.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of a row. None takes the `image_shape` of the estimator. If there
        is none, images are square.
    data_range : tuple of float, default=None
        (low, high), the smallest and the largest value that a pixel can have. None takes the smallest and the largest
        value of `X`.

    Returns
    -------
    float
        The mean over the images. It is 1 for perfect reconstructions.

    References
    ----------
    .. [1] Wang, Z., Bovik, A. C., Sheikh, H. R. and Simoncelli, E. P., "Image quality assessment: from error visibility
       to structural similarity", IEEE Transactions on Image Processing 13(4), 2004.
    """
    from skimage.metrics import structural_similarity

    image_shape = getattr(estimator, "image_shape", None) if image_shape is None else image_shape
    originals = _as_images(X, image_shape)
    n_samples, height, width, _ = originals.shape
    if min(height, width) < 7:
        raise ValueError(f"Structural similarity needs images of at least 7 x 7 pixels; got {height} x {width}.")
    reconstructions = _reconstruct(estimator, X, (n_samples, originals[0].size)).reshape(originals.shape)
    low, high = (originals.min(), originals.max()) if data_range is None else check_range(data_range, "data_range")
    similarities = [
        structural_similarity(original, reconstruction, data_range=(high - low) or 1.0, channel_axis=2)
        for original, reconstruction in zip(originals, reconstructions.astype(np.float64), strict=True)
    ]
    return float(np.mean(similarities))


def sharpness(X: ArrayLike, *, image_shape: Sequence[int] | None = None) -> float:
    """Return the sharpness of images, the variance of their Laplacian.

    It is a measure of focus [1]_. Blurred images have less of it than sharp images, and noisy images have more.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Images.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of a row. None makes square images, if the number of features is a
        square.

    Returns
    -------
    float
        The variance over the pixels, averaged over images and channels, in squared units of the data. Both edges and
        noise raise it, so compare it with the sharpness of real images.

    References
    ----------
    .. [1] Pech-Pacheco, J. L., Cristobal, G., Chamorro-Martinez, J. and Fernandez-Valdivia, J., "Diatom autofocusing in
       brightfield microscopy: a comparative study", ICPR 2000.

    Examples
    --------
    >>> from scipy.ndimage import gaussian_filter
    >>> from sklearn.datasets import load_digits
    >>> from skvae.metrics import sharpness
    >>> X, _ = load_digits(return_X_y=True)
    >>> blurred = gaussian_filter(X.reshape(-1, 8, 8), (0, 1, 1)).reshape(X.shape)
    >>> sharpness(blurred) < sharpness(X)
    True
    """
    images = _as_images(X, image_shape)
    vertical, horizontal = (convolve1d(images, [1, -2, 1], axis=axis, mode="nearest") for axis in (1, 2))
    laplacian = vertical + horizontal
    return float(laplacian.var(axis=(1, 2)).mean())


def frechet_distance(features_a: ArrayLike, features_b: ArrayLike) -> float:
    r"""Return the Fréchet distance between two samples, as if both were from normal distributions.

    For means :math:`\mu` and covariances :math:`\Sigma` it is [1]_

    .. math::

        |\mu_a - \mu_b|^2 + \mathrm{tr}\bigl(\Sigma_a + \Sigma_b
        - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2}\bigr),

    which is the square of the 2-Wasserstein distance.

    Parameters
    ----------
    features_a, features_b : array-like of shape (n_samples, n_features)
        The samples. They should have the same size, because small samples have a large distance even if they come
        from the same distribution.

    Returns
    -------
    float
        The distance, in squared units of the features.

    References
    ----------
    .. [1] Dowson, D. C. and Landau, B. V., "The Fréchet distance between multivariate normal distributions", Journal of
       Multivariate Analysis 12, 1982.

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.metrics import frechet_distance
    >>> features = np.random.RandomState(0).normal(size=(1000, 3))
    >>> round(frechet_distance(features, features + [3, 0, 0]), 6)
    9.0
    """
    a, b = (
        check_array(features, dtype=np.float64, ensure_min_samples=2, input_name=name)
        for features, name in ((features_a, "features_a"), (features_b, "features_b"))
    )
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"features_a has {a.shape[1]} features and features_b {b.shape[1]}; they must have the same number."
        )
    covariance_a, covariance_b = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (a, b))
    values, vectors = eigh(covariance_a)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    overlap = np.sqrt(np.maximum(eigh(root @ covariance_b @ root, eigvals_only=True), 0)).sum()
    means = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(max(0.0, means + np.trace(covariance_a) + np.trace(covariance_b) - 2 * overlap))


class FrechetDistance(NamedTuple):
    """A Fréchet distance and the smallest value to expect of it.

    Parameters
    ----------
    distance : float
        Distance between the images and the real test images.
    floor : float
        Distance between real training images, as many as there are images in `distance`, and the real test images. A
        generator is not expected to come below it.
    """

    distance: float
    floor: float


def classifier_frechet_distance(
    classifier: Any,
    X: ArrayLike,
    X_train: ArrayLike,
    X_test: ArrayLike,
    *,
    random_state: int | RandomState | None = None,
) -> FrechetDistance:
    """Return the Fréchet distance between images and real images, in the features that a classifier has learned.

    It is like the Fréchet inception distance [1]_, but the network is trained on images of the same kind.

    Parameters
    ----------
    classifier : MultilayerCNNClassifier
        A classifier fitted to real images. Any object will do whose method `embed` returns features.
    X : array-like of shape (n_samples, n_features)
        Generated or reconstructed images.
    X_train, X_test : array-like of shape (n_real_samples, n_features)
        Real images. The models were trained on `X_train`, but not on `X_test`.
    random_state : int, RandomState instance or None, default=None
        Source of the draw of rows, where `X` and `X_train` have not as many.

    Returns
    -------
    FrechetDistance
        The distance between `X` and `X_test`. Its floor is the distance between `X_train` and `X_test`. Small samples
        have a large distance, so both are of the same number of rows: of the longer one of `X` and `X_train`, as many
        rows are drawn as the shorter one has.

    References
    ----------
    .. [1] Heusel, M., Ramsauer, H., Unterthiner, T., Nessler, B. and Hochreiter, S., "GANs trained by a two time-scale
       update rule converge to a local Nash equilibrium", NeurIPS 2017.
    """
    real = classifier.embed(X_test)
    n_rows, n_train_rows = np.shape(X)[0], np.shape(X_train)[0]
    train_seed, seed = spawn_seeds(random_state, 2)
    train = resample(X_train, replace=False, n_samples=min(n_rows, n_train_rows), random_state=train_seed)
    if n_rows > n_train_rows:
        X = resample(X, replace=False, n_samples=n_train_rows, random_state=seed)
    return FrechetDistance(frechet_distance(classifier.embed(X), real), frechet_distance(classifier.embed(train), real))


def classification_accuracy_score(
    classifier: Any, X: ArrayLike, y: ArrayLike, X_test: ArrayLike, y_test: ArrayLike
) -> float:
    """Return the accuracy on real data of a classifier that is trained on generated or reconstructed data.

    It measures how well a model keeps the differences between classes [1]_.

    Parameters
    ----------
    classifier : classifier
        The classifier. A clone of it is trained.
    X : array-like of shape (n_samples, n_features)
        Generated or reconstructed rows.
    y : array-like of shape (n_samples,)
        Their labels.
    X_test : array-like of shape (n_test_samples, n_features)
        Real rows.
    y_test : array-like of shape (n_test_samples,)
        Their labels.

    Returns
    -------
    float
        The share of real rows that are classified correctly. Compare it with the accuracy of a classifier that is
        trained on real rows.

    References
    ----------
    .. [1] Ravuri, S. and Vinyals, O., "Classification accuracy score for conditional generative models", NeurIPS 2019.
    """
    return float(accuracy_score(y_test, clone(classifier).fit(X, y).predict(X_test)))
