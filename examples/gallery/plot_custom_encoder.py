"""
================
A custom encoder
================

Any torch module can be the encoder, the decoder or both. Here two convolutions look at the digits, where the built-in
encoders have one or none.
"""

# %%
# An encoder maps rows of shape ``(batch, n_features)`` to ``(batch, 2 * n_components)``: posterior means, then log
# variances (:doc:`/how_to/custom_networks`). `fit` trains a copy of the module.

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skvae import NormalVAETransformer
from skvae.inspection import ReconstructionDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test = train_test_split(X, test_size=0.25, stratify=y, random_state=0)

torch.manual_seed(0)  # random_state does not draw the weights of a module of your own
two_convolutions = nn.Sequential(
    nn.Unflatten(1, (1, 8, 8)),
    nn.Conv2d(1, 16, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(32 * 4 * 4, 2 * 10),
)

# %%
# The decoder and the likelihood are those of the library, and `random_state` still seeds shuffling and noise. But a fit
# with a module of your own begins with random weights. With the built-in networks it begins at probabilistic PCA.

vaes = {
    "dense": NormalVAETransformer(10, max_iter=30, random_state=0),
    "convolution and pooling": NormalVAETransformer(10, encoder="conv", max_iter=30, random_state=0),
    "two convolutions": NormalVAETransformer(10, encoder=two_convolutions, max_iter=30, random_state=0),
}
for name, vae in vaes.items():
    vae.fit(X_train, X_val=X_test)
    print(f"{name}: validation ELBO {vae.history_['validation_elbo'][-1]:.1f} nats")

# %%
# So the third begins far below the others, and catches up. The three end within a few nats of each other: on eight
# by eight pixels there is little for convolutions to find.

figure, axes = plt.subplots(2, 1, figsize=(7, 5), height_ratios=(2, 1), layout="constrained")
for name, vae in vaes.items():
    axes[0].plot(vae.history_["validation_elbo"], label=name)
axes[0].set(xlabel="epoch", ylabel="validation ELBO, nats", ylim=(-180, None))
axes[0].legend()
ReconstructionDisplay.from_estimator(vaes["two convolutions"], X_test[:10], ax=axes[1], vmin=0, vmax=16)
plt.show()
