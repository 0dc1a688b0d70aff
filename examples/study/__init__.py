"""The parts of the regime comparison: what is compared, the full run, its figures and its report."""
