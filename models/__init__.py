"""Sequence models under one contract. Nothing here knows of the harness in ``benchmarks``."""
