"""Benchmarks: `python -m benchmarks.NAME [--quick] [--json F]` prints a table of goal, measured, verdict."""

import os

# Before numpy is loaded: a figure a core is a figure a core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
