"""The order of the gallery: from what one wants to see first to what one asks later."""

ORDER = (
    "quick_start",
    "generated_digits",
    "rows_of_one_class",
    "reconstructions",
    "latent_plane",
    "regime_comparison",
    "anomaly_detection",
    "denoising",
    "imputation",
    "continuous_bernoulli",
    "custom_encoder",
    "early_stopping",
)


class GalleryOrder:
    """Key by which sphinx-gallery sorts the examples of a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, filename):
        """Return the place of an example."""
        return ORDER.index(filename.removeprefix("plot_").removesuffix(".py"))
