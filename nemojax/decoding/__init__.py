"""Searches over labels:

state.py       the prediction network's state, and the labels that a search emits
greedy.py      the best label at each frame
beam.py        several hypotheses at once, frame by frame
beam_scores.py what blanks and labels score for each hypothesis, and what each proposes
beam_fusion.py the scores of graphs in a beam
malsd.py       several hypotheses at once, step by step, over whole recordings
largest.py     the largest values of a row
trace.py       what a beam search writes down at each expansion, and the labels of the hypotheses that remain
graphs.py      graphs that score labels, all in one pool, and looking labels up in them
graph_pool.py  the owner of the pool
fusion.py      adds the scores of graphs to those of labels
phrases.py     phrases as a graph
confidence.py  measures of how sure a label and a word are
"""
