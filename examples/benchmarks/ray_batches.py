"""Transform a Parquet data set with Ray Data: each worker loads the model once, and gets one batch after another.

python examples/benchmarks/ray_batches.py
"""

import os
import tempfile
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # so named, it keeps Ray on 127.0.0.1 on any system

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from sklearn.datasets import load_digits

from skvae import NormalVAETransformer


class Encoder:
    """A fitted model in a worker."""

    def __init__(self, path):
        self.vae = joblib.load(path)

    def __call__(self, batch):
        """Return latent rows for a batch of rows."""
        return {"row": batch["row"], "z": self.vae.transform(np.stack(batch["pixels"]))}


def main():
    """Fit a model, encode the digits with it in two workers, and compare with one process."""
    X, _ = load_digits(return_X_y=True)
    vae = NormalVAETransformer(10, max_iter=20, random_state=0).fit(X)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        joblib.dump(vae, folder / "vae.joblib")
        for number, rows in enumerate(np.array_split(np.arange(len(X)), 4)):
            table = pa.table({"row": rows, "pixels": list(X[rows])})
            pq.write_table(table, folder / f"digits-{number}.parquet")
        ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")  # one reads
        images = ray.data.read_parquet(str(folder), file_extensions=["parquet"])
        encoded = images.map_batches(
            Encoder,
            fn_constructor_args=[folder / "vae.joblib"],
            batch_size=256,
            compute=ray.data.ActorPoolStrategy(size=2),
        ).to_pandas()
        ray.shutdown()
    Z = np.stack(encoded.sort_values("row")["z"])
    print(f"{len(Z)} rows, the largest difference to one process is {np.abs(Z - vae.transform(X)).max():.1e}")


if __name__ == "__main__":
    main()
