"""Benchmarks: one module each, with `measure() -> Result`; `python -m tests.bench NAME -o json` runs one.

Rules kept: real processes; a benchmark prints what it measured and never judges it.
"""
