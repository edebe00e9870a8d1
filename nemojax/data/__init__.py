"""Training data: manifests to batches of static shapes, in the order of the modules below.

    corpus.py           manifests and a tokenizer to utterances; what is left out, and why
    waveform.py         augmentation of samples
    buckets.py          the (frames, labels) shapes of batches
    plan.py             which utterances each step trains on: a function of seed and step
    loading.py          one step as arrays: decoded, augmented, padded
    pipeline.py         all steps, made ahead of time by worker processes
    validate.py         a command: everything that is wrong with some manifests
    train_tokenizer.py  a command: a SentencePiece model from the texts of some manifests

Nothing here needs jax or a device; the log-mel front end and SpecAugment run inside the training step.
"""
