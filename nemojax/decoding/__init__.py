"""Search over labels: greedy."""
