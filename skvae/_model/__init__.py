"""The model: networks, and the autoencoder that they and a likelihood make."""
