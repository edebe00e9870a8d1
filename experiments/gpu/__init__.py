"""Measures the recognizer on a GPU in one command, in stages, within minutes.

    run.py             the command: its settings, and the order of the stages
    stages.py          the stages, each of which adds rows
    points.py          points of a live step, and the sizes of all stages
    stage_rows.py      rows with their stage and the time since the start
    report.py          tables of the rows

    correctness.py     stage a: a GPU's encoder frames and labels against a CPU's
    live.py            stages b, c and h: live steps
    serving.py         stages d and e: the engine, and whole recordings
    training_step.py   stage f
    peer.py            stage g: transformers, in a process of its own

    bench.py           the weights on the device, and the jitted functions that are timed
    weights.py         random weights that emit labels at the rate of speech
    calibration.py     fits these weights to the label rate
    variants.py        forms of the model with the same parameters
    programs.py        compiles programs side by side
    kernels.py         the time of a GPU's kernels, from a trace
    ceilings.py        the rates that a card reaches, and the lower bound of a step

wheels.txt names what a machine without a network needs; wheels.sh downloads it.
"""
