"""Measure what one fit over two processes takes and exchanges, against the same fit in one.

Each process has one thread. Data are 10,000 images of random bytes, of 28 x 28 pixels: speed does not depend on what
they show. Bytes are counted at the loopback interface, so that nothing else should be busy with it.

    python examples/benchmarks/scaling_fit.py
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from training import MODELS as ESTIMATORS

DOCS = Path(__file__).parents[2] / "docs"

MODELS = {
    "normal, 128": lambda: ESTIMATORS["normal"](random_state=0),
    "normal, 512": lambda: ESTIMATORS["normal"](batch_size=512, random_state=0),
    "CB, 128": lambda: ESTIMATORS["continuous Bernoulli"](data_range=(0, 255), random_state=0),
    "CB, 512": lambda: ESTIMATORS["continuous Bernoulli"](data_range=(0, 255), batch_size=512, random_state=0),
}


def sent():
    """Return the bytes that have gone over the loopback interface."""
    return int(Path("/sys/class/net/lo/statistics/tx_bytes").read_text())


def work(rank, size, folder, together):
    """Fit each model for some epochs, and let the first process report seconds and bytes for a step.

    Where they do not work together, each process has half of the rows of a minibatch all to itself.
    """
    torch.set_num_threads(1)
    if together:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    X = np.random.RandomState(0).randint(0, 256, size=(10_000, 784), dtype=np.uint8)
    report = {}
    for name, make in MODELS.items():
        vae = make()
        if not together:
            vae.set_params(batch_size=vae.batch_size // size)
        vae.partial_fit(X)
        n_steps = -(-len(X) // vae.batch_size)
        seconds, n_bytes, sums = [], [], []
        for _ in range(5 if name.startswith("normal") else 2):
            start, before = time.perf_counter(), sent()
            vae.partial_fit(X)
            seconds.append((time.perf_counter() - start) / n_steps)
            n_bytes.append((sent() - before) / n_steps)
        n_weights = sum(p.numel() for p in vae.module_.parameters())
        for _ in range(20 if together else 0):
            start = time.perf_counter()
            dist.all_reduce(torch.zeros(n_weights))
            sums.append(time.perf_counter() - start)
        report[name] = {
            "seconds": statistics.median(seconds),
            "bytes": statistics.median(n_bytes),
            "sum": statistics.median(sums) if sums else None,
            "model": 4 * n_weights,
        }
    if rank == 0:
        (folder / "report").write_text(json.dumps(report))
    if together:
        dist.destroy_process_group()


def measure(size, together):
    """Return the report of as many processes."""
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--worker", str(size), folder, str(int(together))]
        processes = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(size)]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError("A process has failed; what it printed is above.")
        return json.loads((Path(folder) / "report").read_text())


def main():
    """Measure one process, two apart and two together; write the results and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=DOCS / "results" / "scaling_fit.json")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        size, folder, together, rank = options.worker
        work(int(rank), int(size), Path(folder), together == "1")
        return
    reports = {
        "one": measure(1, together=False),
        "two apart": measure(2, together=False),
        "two together": measure(2, together=True),
    }
    options.output.write_text(json.dumps(reports, indent=1) + "\n")
    print(
        "| model, batch | one, ms | two apart, ms | two together, ms | the sum alone, ms | model, MB | exchanged, MB |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in MODELS:
        one, apart, both = (report[name] for report in reports.values())
        times = (1e3 * value for value in (one["seconds"], apart["seconds"], both["seconds"], both["sum"]))
        sizes = (value / 1e6 for value in (one["model"], both["bytes"]))
        print(
            f"| {name} |", " | ".join([*(f"{value:.1f}" for value in times), *(f"{value:.2f}" for value in sizes)]), "|"
        )


if __name__ == "__main__":
    main()
