"""
=========
Denoising
=========

A model of noisy images leaves out what its components do not explain, and that is mostly noise. The images go through
``transform`` and ``inverse_transform``, and come out cleaner. No clean image is needed.
"""

# %%
# The models are fitted to noisy images. What they cannot express with ten components, they drop, and most of the noise
# is among it. A VAE weighs each detail besides: a component that is not known well stays near zero. PCA projects.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skvae import NormalVAETransformer
from skvae.inspection import SamplesDisplay

X, y = load_digits(return_X_y=True)
noisy = X + np.random.RandomState(0).normal(scale=4, size=X.shape)
noisy_train, noisy_test, _, X_test = train_test_split(noisy, X, test_size=0.25, stratify=y, random_state=0)
models = {
    "PCA": PCA(10, random_state=0).fit(noisy_train),
    "normal VAE": NormalVAETransformer(10, random_state=0).fit(noisy_train),
}
images = {"clean": X_test, "noisy": noisy_test}
images |= {name: model.inverse_transform(model.transform(noisy_test)) for name, model in models.items()}
for name, rows in images.items():
    print(f"{name}: mean squared error {np.mean((rows - X_test) ** 2):.2f}")

# %%
# The noise has a variance of 16, on gray values of 0 to 16. On images that they were not fitted to, both models take
# away more than half of the error, and the VAE more than PCA.

figure, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
strip = np.concatenate([rows[:12] for rows in images.values()])
SamplesDisplay(strip, 12, row_labels=list(images)).plot(ax=ax, vmin=0, vmax=16)
plt.show()
