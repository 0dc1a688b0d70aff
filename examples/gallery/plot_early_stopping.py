"""
===========================
Early stopping and monitors
===========================

When is a model done? Watch the ELBO of rows that it does not train on, stop when it no longer rises, and look at its
samples along the way.
"""

# %%
# ``early_stopping=True`` sets a tenth of the rows aside, measures their ELBO after each epoch, and keeps the weights of
# the best. ``SampleMonitor`` is a callback that draws samples from the same latent points after chosen epochs.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from skvae import NormalVAETransformer
from skvae.callbacks import SampleMonitor
from skvae.inspection import SamplesDisplay, TrainingCurveDisplay

X, _ = load_digits(return_X_y=True)
monitor = SampleMonitor(n_samples=10, epochs=(1, 3, 10, 30), random_state=0)
vae = NormalVAETransformer(10, hidden_layer_sizes=512, learning_rate_init=3e-3, early_stopping=True, random_state=0)
vae.set_callbacks(monitor).fit(X)
print(f"stopped after {vae.n_iter_} epochs; best validation ELBO {vae.best_validation_score_:.1f} nats")

# %%
# On the training rows the ELBO goes on rising when on the validation rows it no longer does. All components are in use
# from the first epoch on, since the fit begins at probabilistic PCA, and the KL term rises as they say more of each
# image; see :doc:`/guide/reading_a_fit`.

figure, axes = plt.subplots(2, 1, figsize=(7, 6.4), height_ratios=(3, 2), layout="constrained")
TrainingCurveDisplay.from_estimator(vae, ax=axes[0])
SamplesDisplay.from_monitor(monitor, ax=axes[1], vmin=0, vmax=16)
plt.show()
