"""Experiments on nemojax, a room for each question; `python -m experiments` lists the commands."""
