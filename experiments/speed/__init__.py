"""Speed of steps, of many streams, and of training's parts.

growth.py            a command: how a step's cost grows
growth_bench.py      its timed steps
growth_threads.py    its steps on a number of cores
profile.py           a command: where a step's time goes
profiled_step.py     its step, run under jax's profiler
trace.py             a profiler's trace, read by named scope
versions.py          a command: a step in several versions of the code
versions_worker.py   its process of one version
search_cost.py       a command: what a beam costs
fusion_cost.py       a command: what a language model and phrases cost
side_by_side.py      the live streams that both time
roofline.py          a command: the least time of a step on a device
capacity.py          a command: how many live streams a card's memory holds
streams.py           a command: how many live streams a machine serves
engine_overhead.py   a command: what the engine's own work allows
zero_cost_engine.py  its engine, whose device costs no time
loss.py              a command: time and memory of the RNN-T loss
loss_forms.py        the loss in nemojax, in other forms, and in torch
data.py              a command: whether the data pipeline keeps up with training
"""
