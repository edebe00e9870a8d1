"""Training runs:

train.py           the command
presets.py         its settings, and the named presets
loop.py            the loop of steps, evaluations and checkpoints
processes.py       how the processes of a job find each other
start.py           the first weights and the tokenizer
planning.py        the batches, and the dev recordings
kept_settings.py   the settings that a run keeps, compared when it is resumed
opening.py         what a run says at its start
estimate.py        a dry run: the memory of a step, from shapes alone
dev_scores.py      WER and CER of dev manifests, with a sample
early_stopping.py  when a run ends before its last step
progress.py        the progress bar, and lines where there is no terminal
operations.py      the arithmetic of a step, and devices' peaks
trackers.py        TensorBoard, and Weights & Biases
run_directory.py   the files of a run
export.py          a run's weights as a native checkpoint
"""
