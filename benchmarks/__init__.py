"""Benchmarks: `python -m benchmarks.NAME [--quick] [--json F]` prints a table of goal, measured, verdict."""
