"""The same two autoencoders as a user would write them in torch, and the loops that a user would train them with."""

import tempfile

import torch
from skorch import NeuralNet
from torch import nn
from torch.distributions import ContinuousBernoulli
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset


class PlainVAE(nn.Module):
    """A variational autoencoder whose forward pass returns the loss.

    Parameters
    ----------
    model : {"normal", "continuous Bernoulli"}
        Which one: that of `NormalVAETransformer` or of `ContinuousBernoulliVAETransformer`, with the settings that
        `training.MODELS` gives them.
    n_features, n_components : int, default=784, 20
        The sizes of a row and of its latent one. The second model is for images of 28 x 28.
    """

    def __init__(self, model, n_features=784, n_components=20):
        super().__init__()
        self.model = model
        if model == "normal":
            self.encoder = nn.Sequential(nn.Linear(n_features, 128), nn.ReLU(), nn.Linear(128, 2 * n_components))
            self.decoder = nn.Sequential(nn.Linear(n_components, 128), nn.ReLU(), nn.Linear(128, 2 * n_features))
        else:
            self.encoder = nn.Sequential(
                nn.Unflatten(1, (1, 28, 28)),
                nn.Conv2d(1, 32, 3, padding=1),
                nn.MaxPool2d(2),
                nn.Flatten(),
                *dense(6272, 512),
                nn.Linear(512, 2 * n_components),
            )
            self.decoder = nn.Sequential(*dense(n_components, 512), nn.Linear(512, n_features))

    def posterior(self, x):
        """Return mean and standard deviation of the latent rows."""
        mean, raw = self.encoder(x).chunk(2, dim=1)
        return mean, (raw / 2).exp() if self.model == "normal" else softplus(raw) + 1e-6

    def normal(self, z):
        """Return mean and standard deviation of the rows of the normal model."""
        location, raw_scale = self.decoder(z).chunk(2, dim=1)
        return location, 0.4 + softplus(raw_scale)

    def forward(self, x):
        """Return the mean negative ELBO of the rows."""
        mean, std = self.posterior(x)
        z = mean + std * torch.randn_like(std)
        if self.model == "normal":
            location, scale = self.normal(z)
            log_likelihood = -(0.5 * ((x - location) / scale).square() + scale.log()).sum(1)
        else:
            log_likelihood = ContinuousBernoulli(logits=self.decoder(z), validate_args=False).log_prob(x).sum(1)
        return (kl_divergence(mean, std) - log_likelihood).mean()


def kl_divergence(mean, std):
    """Return the divergence of each latent row from N(0, I)."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(1)


def dense(n_inputs, width):
    """Return two hidden layers with dropout."""
    layers = [nn.Linear(n_inputs, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, width)]
    return [*layers, nn.ReLU(), nn.Dropout(0.1)]


def index_tensor_loop(model, X, batch_size, **options):
    """Return a function that trains for one epoch over rows picked by a shuffled index, with fused Adam."""
    return train_by_index(PlainVAE(model).to(X.device), X, batch_size, **options)


def train_by_index(module, X, batch_size, *, compiled=False, bfloat16=False):
    """Return the function of `index_tensor_loop` for a module."""
    run = torch.compile(module, dynamic=False) if compiled else module
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

    def epoch():
        for index in torch.randperm(len(X)).split(batch_size):
            optimizer.zero_grad()
            with torch.autocast(X.device.type, dtype=torch.bfloat16, enabled=bfloat16):
                loss = run(X[index])
            loss.backward()
            nn.utils.clip_grad_value_(module.parameters(), 2.0)
            optimizer.step()

    return epoch


def data_loader_loop(model, X, batch_size):
    """Return a function that trains for one epoch from a `DataLoader`, with Adam as it comes."""
    module = PlainVAE(model)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(X), batch_size=batch_size, shuffle=True)

    def epoch():
        for (batch,) in loader:
            optimizer.zero_grad()
            module(batch).backward()
            nn.utils.clip_grad_value_(module.parameters(), 2.0)
            optimizer.step()

    return epoch


class _LossNet(NeuralNet):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return y_pred


def skorch_epoch(model, X, batch_size):
    """Return a function that trains for one epoch with skorch's defaults, but for the validation split."""
    net = _LossNet(
        PlainVAE,
        module__model=model,
        criterion=nn.Identity,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=batch_size,
        max_epochs=1,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        device=X.device.type,
    ).initialize()
    return lambda: net.partial_fit(X, None)


def pythae_epoch(model, X, batch_size):
    """Return a function that trains for one epoch with pythae's trainer and its defaults, but for the progress bar."""
    return train_by_pythae(PlainVAE(model), X, batch_size)


def train_by_pythae(module, X, batch_size):
    """Return the function of `pythae_epoch` for a module."""
    import logging

    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.INFO)

    class Model(VAE):
        def __init__(self):
            super().__init__(VAEConfig(input_dim=(X.shape[1],), latent_dim=1))
            self.encoder = self.decoder = None
            self.plain = module

        def forward(self, inputs, **kwargs):
            loss = self.plain(inputs["data"])
            return ModelOutput(loss=loss, recon_loss=loss, reg_loss=loss)

    config = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(), learning_rate=1e-3, per_device_train_batch_size=batch_size, num_epochs=1
    )
    trainer = BaseTrainer(Model(), BaseDataset(X, torch.zeros(len(X))), training_config=config)
    trainer.prepare_training()
    trainer.callback_handler.callbacks.clear()  # its progress bar would print, and count
    return lambda: trainer.train_step(1)
