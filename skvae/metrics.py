"""How good reconstructions and samples are, in figures."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.ndimage import convolve1d
from sklearn.base import clone
from sklearn.metrics import accuracy_score
from sklearn.utils import check_array, resample

from skvae._validation import bounds, image_dimensions, spawn_seeds

__all__ = [
    "FrechetDistance",
    "classification_accuracy_score",
    "classifier_frechet_distance",
    "frechet_distance",
    "reconstruction_mse",
    "reconstruction_ssim",
    "sharpness",
]


def _as_images(X, image_shape, name):
    """Return rows of features as images: (n_samples, height, width, channels), in float64."""
    X = check_array(X, dtype=np.float64, input_name=name)
    shape = image_dimensions(image_shape, X.shape[1])
    if shape is None:
        raise ValueError(
            f"{name} has {X.shape[1]} features, which are not a square of at least 4 x 4. Give image_shape=(height, "
            f"width) or (height, width, channels)."
        )
    return X.reshape(-1, *shape)


def _reconstruct(estimator, X, shape):
    """Return the reconstructions as an array of this shape."""
    reconstructed = np.asarray(estimator.inverse_transform(estimator.transform(X)))
    if reconstructed.shape != shape:
        raise ValueError(f"Reconstructions must have the shape of X, {shape}; got {reconstructed.shape}.")
    return reconstructed


def reconstruction_mse(estimator, X):
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
        The mean over all entries of the squared difference, in squared units of the data.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from skvae.metrics import reconstruction_mse
    >>> X, _ = load_digits(return_X_y=True)
    >>> reconstruction_mse(PCA(20).fit(X), X) < reconstruction_mse(PCA(10).fit(X), X)
    True
    """
    originals = check_array(X, dtype="numeric")
    errors = np.subtract(_reconstruct(estimator, X, originals.shape), originals, dtype=np.float64)
    return float(np.mean(np.square(errors)))


def reconstruction_ssim(estimator, X, *, image_shape=None, data_range=None):
    """Return the mean structural similarity of images and their reconstructions.

    The measure [1]_ is scikit-image's, over windows of 7 x 7 pixels, which has to be installed (``pip
    install skvae[metrics]``).

    Parameters
    ----------
    estimator : estimator
        A fitted model with the methods `transform` and `inverse_transform`.
    X : array-like of shape (n_samples, n_features)
        Images of at least 7 x 7 pixels.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of a row. None takes that of the estimator if it has one, or a
        square.
    data_range : tuple of float, default=None
        (low, high), the smallest and the largest value that a pixel can have. None takes those of `X`.

    Returns
    -------
    float
        The mean over the images; 1 for perfect reconstructions.

    References
    ----------
    .. [1] Wang, Z., Bovik, A. C., Sheikh, H. R. and Simoncelli, E. P., "Image quality assessment: from error visibility
       to structural similarity", IEEE Transactions on Image Processing 13(4), 2004.
    """
    from skimage.metrics import structural_similarity

    image_shape = getattr(estimator, "image_shape", None) if image_shape is None else image_shape
    originals = _as_images(X, image_shape, "X")
    n_samples, height, width, _ = originals.shape
    if min(height, width) < 7:
        raise ValueError(f"Structural similarity needs images of at least 7 x 7 pixels; got {height} x {width}.")
    reconstructions = _reconstruct(estimator, X, (n_samples, originals[0].size)).reshape(originals.shape)
    low, high = (originals.min(), originals.max()) if data_range is None else bounds(data_range, "data_range")
    similarities = [
        structural_similarity(original, reconstruction, data_range=(high - low) or 1.0, channel_axis=2)
        for original, reconstruction in zip(originals, reconstructions.astype(np.float64), strict=True)
    ]
    return float(np.mean(similarities))


def sharpness(X, *, image_shape=None):
    """Return the sharpness of images, the variance of their Laplacian.

    It is a measure of focus [1]_: blurred images have less of it, and noisy ones more.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Images.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of a row. None takes a square number of features for a square
        image.

    Returns
    -------
    float
        The mean over the images and their channels of the variance over the pixels, in squared units of the data.
        Noise raises it as well as edges do: compare it with that of real images.

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
    images = _as_images(X, image_shape, "X")
    laplacian = sum(convolve1d(images, [1, -2, 1], axis=axis, mode="nearest") for axis in (1, 2))
    return float(laplacian.var(axis=(1, 2)).mean())


def frechet_distance(features_a, features_b):
    r"""Return the Fréchet distance of two samples, each taken for that of a normal distribution.

    With means :math:`\mu` and covariances :math:`\Sigma` it is [1]_

    .. math::

        |\mu_a - \mu_b|^2 + \mathrm{tr}\bigl(\Sigma_a + \Sigma_b
        - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2}\bigr),

    the square of the 2-Wasserstein distance.

    Parameters
    ----------
    features_a, features_b : array-like of shape (n_samples, n_features)
        The samples, best of equal size: the fewer there are, the larger the distance is even between samples of one
        distribution.

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
        raise ValueError(f"features_a has {a.shape[1]} features and features_b {b.shape[1]}; they must have as many.")
    covariance_a, covariance_b = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (a, b))
    values, vectors = eigh(covariance_a)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    overlap = np.sqrt(np.maximum(eigh(root @ covariance_b @ root, eigvals_only=True), 0)).sum()
    means = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(max(0.0, means + np.trace(covariance_a) + np.trace(covariance_b) - 2 * overlap))


class FrechetDistance(NamedTuple):
    """A Fréchet distance and what is to be seen beside it.

    Parameters
    ----------
    distance : float
        That of the images to the real test images.
    floor : float
        That of as many real training images to the real test images: no generator can be expected to come below.
    """

    distance: float
    floor: float


def classifier_frechet_distance(classifier, X, X_train, X_test, *, random_state=None):
    """Return the Fréchet distance of images to real ones in the features that a classifier has learned, and its floor.

    It is made as the Fréchet inception distance is [1]_, with a network that was trained on images of this kind.

    Parameters
    ----------
    classifier : MultilayerCNNClassifier
        Fitted to real images; or anything else whose method `embed` returns features.
    X : array-like of shape (n_samples, n_features)
        The images in question, generated or reconstructed.
    X_train, X_test : array-like of shape (n_real_samples, n_features)
        Real images: those that the models were trained on, and others. Of `X_train`, as many rows are drawn as `X`
        has.
    random_state : int, RandomState instance or None, default=None
        Source of that draw.

    Returns
    -------
    FrechetDistance
        The distance of `X` to `X_test`, and its floor, that of `X_train` to `X_test`.

    References
    ----------
    .. [1] Heusel, M., Ramsauer, H., Unterthiner, T., Nessler, B. and Hochreiter, S., "GANs trained by a two time-scale
       update rule converge to a local Nash equilibrium", NeurIPS 2017.
    """
    real = classifier.embed(X_test)
    n_samples = min(len(X), len(X_train))
    train = resample(X_train, replace=False, n_samples=n_samples, random_state=spawn_seeds(random_state, 1)[0])
    return FrechetDistance(frechet_distance(classifier.embed(X), real), frechet_distance(classifier.embed(train), real))


def classification_accuracy_score(classifier, X, y, X_test, y_test):
    """Return the accuracy on real data of a classifier that is trained on generated or reconstructed data.

    It says how much of what tells classes apart a model has kept [1]_.

    Parameters
    ----------
    classifier : classifier
        What to train; a clone of it is.
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
        The share of real rows that are classified rightly; to be compared with that of a classifier trained on real
        rows.

    References
    ----------
    .. [1] Ravuri, S. and Vinyals, O., "Classification accuracy score for conditional generative models", NeurIPS 2019.
    """
    return float(accuracy_score(y_test, clone(classifier).fit(X, y).predict(X_test)))
