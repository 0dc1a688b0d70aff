"""Fit one model in several processes, each with its part of every minibatch; torchrun starts them.

torchrun --nproc-per-node 2 examples/benchmarks/several_processes.py
"""

import argparse
from pathlib import Path

import joblib
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits

from skvae import NormalVAETransformer


def main():
    """Fit to the digits together, and let the first process save the model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("examples/output/digits.joblib"))
    options = parser.parse_args()
    dist.init_process_group()  # torchrun says who is who
    if torch.cuda.is_available():
        torch.cuda.set_device(dist.get_node_local_rank())
    X, _ = load_digits(return_X_y=True)
    vae = NormalVAETransformer(10, max_iter=20, random_state=0, verbose=1).fit(X)
    if dist.get_rank() == 0:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        joblib.dump(vae, options.output)
        print(f"Written to {options.output}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
