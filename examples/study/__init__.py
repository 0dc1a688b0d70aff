"""The study on Fashion-MNIST: the main job, what it is made of, and the figures of the user guide."""
