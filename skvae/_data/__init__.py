"""From what the user hands in to the minibatches that a training step gets."""
