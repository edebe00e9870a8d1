"""Training data: manifests to batches of static shapes, in the order in which data flows.

    corpus.py           manifests and a tokenizer to utterances; which are left out, and why
    replay.py           other data at a share of an epoch
    waveform.py         augmentation of samples
    buckets.py          the (frames, labels) shapes of batches
    plan.py             the utterances of each step: a function of seed and step
    loading.py          a step's batch as arrays: decoded, augmented, padded
    pipeline.py         the batches of all steps, prepared ahead of time by worker processes
    validate.py         a command that lists everything wrong with manifests
    train_tokenizer.py  a command that trains a SentencePiece model on the texts of manifests
    command.py          the entry point that both commands share

Nothing here needs jax or a device; the log-mel front end and SpecAugment run inside the training step.
"""
