"""Latency of nemojax beside its peers: the same weights and the same audio, each contender in a process of its own.

compare.py       the command, `python -m experiments compare_latency`, and its measurements
contender.py     the interface of a contender, and the greedy search given to peers without a fast one of their own
ours.py          nemojax
peers.py         transformers and NeMo
graph_peers.py   onnxruntime, OpenVINO and sherpa-onnx, on ONNX graphs
weights.py       one set of random weights in the form of each
onnx_export.py   NeMo's export, a graph for each look-ahead, in float32 and int8
worker.py        the process that runs a contender
process.py       that process, from the command's side
report.py        tables, ratios and the plot
"""
