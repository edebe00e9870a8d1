"""Searches over labels:

state.py       the prediction network's state, and the labels that a search emits
greedy.py      the best label at each frame
confidence.py  measures of how sure a label and a word are
"""
