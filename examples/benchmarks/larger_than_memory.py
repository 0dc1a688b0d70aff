"""Fit and transform a Parquet data set of several files that is larger than the memory the process is allowed.

The images are digits, enlarged to 24 x 24 pixels with noise, which another process writes in several files. Then this
one limits its memory to less than the data set, fits a model by `partial_fit` on one part after the other, writes the
latents as Parquet, also in parts, and finds that it cannot read all at once. Linux only: the limit is RLIMIT_DATA.

    python examples/benchmarks/larger_than_memory.py
"""

import argparse
import multiprocessing
import re
import resource
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch
from sklearn.datasets import load_digits

from skvae import NormalVAETransformer

ROWS_PER_FILE = 50_000


def write_images(folder, n_files):
    """Write files of images, each one a row of 576 bytes; the rows of every file are a mixture of all digits."""
    digits = load_digits().images * (255 / 16)
    for number in range(n_files):
        random_state = np.random.RandomState(number)
        images = digits[random_state.randint(len(digits), size=ROWS_PER_FILE)].astype(np.int16)
        images = images.repeat(3, axis=1).repeat(3, axis=2).reshape(ROWS_PER_FILE, -1)
        images += random_state.randint(-10, 11, size=images.shape, dtype=np.int16)
        pixels = pa.FixedSizeListArray.from_arrays(images.clip(0, 255).astype(np.uint8).ravel(), images.shape[1])
        pq.write_table(pa.table({"pixels": pixels}), folder / f"part-{number:03}.parquet", row_group_size=10_000)


def blocks(folder):
    """Yield the rows of all files as arrays, a part of a file at a time, without a copy."""
    for path in sorted(folder.glob("part-*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(10_000):
            pixels = batch["pixels"]
            yield pixels.flatten().to_numpy().reshape(len(pixels), -1)


def memory():
    """Return the bytes of private memory of this process, which is what RLIMIT_DATA limits."""
    return 1024 * int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def fits_in_memory(folder):
    """Return whether the whole data set can be read at once."""
    try:
        ds.dataset(folder, format="parquet").to_table()
    except (MemoryError, pa.ArrowMemoryError):
        return False
    return True


def main():
    """Have the data written, limit the memory, fit, and write the latents."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--files", type=int, default=14, help="of 29 MB each (default: %(default)s)")
    parser.add_argument("--megabytes", type=int, default=300, help="of memory for the data (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="(default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # each thread reserves memory of its own
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own reserves a gigabyte to begin with
    with tempfile.TemporaryDirectory() as name:
        folder, latents = Path(name) / "images", Path(name) / "latents.parquet"
        folder.mkdir()
        # What another process frees is not there for this one to use again.
        writer = multiprocessing.get_context("spawn").Process(target=write_images, args=(folder, options.files))
        writer.start()
        writer.join()
        images = ds.dataset(folder, format="parquet")
        size = images.count_rows() * images.schema.field("pixels").type.list_size
        limit = options.megabytes * 10**6
        resource.setrlimit(resource.RLIMIT_DATA, (memory() + limit, resource.RLIM_INFINITY))

        held_out = next(blocks(folder))
        vae = NormalVAETransformer(10, hidden_layer_sizes=64, random_state=0)
        for _ in range(options.epochs):
            for number, block in enumerate(blocks(folder)):
                if number > 0:
                    vae.partial_fit(block)
            print(f"{vae.n_iter_} parts seen, ELBO of the rows held out {vae.score(held_out[:1000]):.1f}")

        with pq.ParquetWriter(latents, pa.schema([("z", pa.list_(pa.float32(), 10))])) as writer:
            for block in blocks(folder):
                z = pa.FixedSizeListArray.from_arrays(vae.transform(block).ravel(), 10)
                writer.write_table(pa.table({"z": z}))
        print(f"{pq.read_metadata(latents).num_rows} rows of latents written")
        print(f"{size / 1e6:.0f} MB of data, {limit / 1e6:.0f} MB for it; fit in memory: {fits_in_memory(folder)}")


if __name__ == "__main__":
    main()
