"""Searches over labels:

state.py   the prediction network's state, and the labels that a search emits
greedy.py  the best label at each frame
beam.py    several hypotheses at once, frame by frame
trace.py   what a beam search writes down at each expansion, and the labels of the hypotheses that remain
"""
