"""Training runs:

train.py          the command
presets.py        its settings, and the named presets
loop.py           the loop of steps, evaluations and checkpoints
dev_scores.py     WER and CER of dev manifests
progress.py       the progress bar
start.py          the first weights and the tokenizer
run_directory.py  the files of a run
export.py         a run's weights as a native checkpoint
"""
