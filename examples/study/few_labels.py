"""What a representation is worth where few rows have labels: it is fitted to all of them, a classifier to the few."""

import math

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier

from skvae.classifiers import MultilayerCNNClassifier
from study import models
from study.pieces import fit_representation, split

N_LABELS = (100, 300, 1000, 3000)

# The labels are drawn so many times for each seed, each time others, and the same for all representations.
N_DRAWS = 5


# Steps of the CNN, and rows of each.
N_STEPS, BATCH_SIZE = 1000, 32


def classifiers(n_labels, seed):
    """Return the classifiers by name. What they leave open is chosen by cross-validation on the rows with labels."""
    logistic = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.01, 0.1, 1, 10]}, cv=3)
    neighbors = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 5, 15]}, cv=3)
    n_epochs = math.ceil(N_STEPS * BATCH_SIZE / n_labels)
    network = MultilayerCNNClassifier(max_iter=n_epochs, batch_size=BATCH_SIZE, random_state=seed)
    return {"logistic": logistic, "neighbors": neighbors, "multilayer_cnn": network}


def measure(piece, options):
    """Return the test accuracies by classifier and number of labels, one for each draw of the labels."""
    X, y, cv = models.load(options.dataset)
    train, test = split(cv, X, y, piece.regime)
    fitted = fit_representation(*piece.fit, options)["fitted"]
    latents, latents_test = fitted.transform(X[train]), fitted.transform(X[test])
    found = {}
    for n_labels in (n for n in N_LABELS if n < len(train)):
        for draw in range(N_DRAWS * piece.seed, N_DRAWS * (piece.seed + 1)):
            rows, _ = train_test_split(np.arange(len(train)), train_size=n_labels, stratify=y[train], random_state=draw)
            for name, classifier in classifiers(n_labels, piece.seed).items():
                score = classifier.fit(latents[rows], y[train][rows]).score(latents_test, y[test])
                found.setdefault(name, {}).setdefault(str(n_labels), []).append(score)
    return {"few_labels": found}
