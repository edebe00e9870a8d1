"""Measures the recognizer on a GPU in one call; `python -m experiments.gpu --help` lists its settings."""
