"""Benchmarks: one command each, their records in benchmarks/results/."""
