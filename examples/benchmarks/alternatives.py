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
        Which one: that of `NormalVAETransformer` or of `ContinuousBernoulliVAETransformer` on 28 x 28 images, with
        the settings that `training.MODELS` gives them.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        if model == "normal":
            self.encoder = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 40))
            self.decoder = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 1568))
        else:
            self.encoder = nn.Sequential(
                nn.Unflatten(1, (1, 28, 28)),
                nn.Conv2d(1, 32, 3, padding=1),
                nn.MaxPool2d(2),
                nn.Flatten(),
                *dense(6272, 512),
                nn.Linear(512, 40),
            )
            self.decoder = nn.Sequential(*dense(20, 512), nn.Linear(512, 784))

    def forward(self, x):
        """Return the mean negative ELBO of the rows."""
        mean, raw = self.encoder(x).chunk(2, dim=1)
        std = (raw / 2).exp() if self.model == "normal" else softplus(raw) + 1e-6
        decoded = self.decoder(mean + std * torch.randn_like(std))
        if self.model == "normal":
            location, raw_scale = decoded.chunk(2, dim=1)
            scale = 0.4 + softplus(raw_scale)
            log_likelihood = -(0.5 * ((x - location) / scale).square() + scale.log()).sum(1)
        else:
            log_likelihood = ContinuousBernoulli(logits=decoded, validate_args=False).log_prob(x).sum(1)
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(1)
        return (kl - log_likelihood).mean()


def dense(n_inputs, width):
    """Return two hidden layers with dropout."""
    layers = [nn.Linear(n_inputs, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, width)]
    return [*layers, nn.ReLU(), nn.Dropout(0.1)]


def index_tensor_loop(model, X, batch_size, *, compiled=False, bfloat16=False):
    """Return a function that trains for one epoch over rows picked by a shuffled index, with fused Adam."""
    module = PlainVAE(model).to(X.device)
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
    import logging

    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.INFO)

    class Model(VAE):
        def __init__(self):
            super().__init__(VAEConfig(input_dim=(784,), latent_dim=20))
            self.encoder = self.decoder = None
            self.plain = PlainVAE(model)

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
