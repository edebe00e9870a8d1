"""nemojax beside its peers: the same weights and the same audio, each in a process of its own.

contender.py     what a contender is, and the greedy search that those without a fast one of their own are given
ours.py          nemojax
peers.py         transformers, NeMo, onnxruntime
weights.py       one set of random weights in the form of each
onnx_export.py   NeMo's export, a graph for each look-ahead, in float32 and int8
worker.py        the process in which a contender answers
process.py       it, seen from outside
report.py        tables, ratios and the plot

`python -m experiments compare_latency` is the command.
"""
