"""The model as pure layers, each with its cache, in the order of the data:

    layers.py       linear layer, layer norm, dropout, shared by all
    features.py     samples to log-mel frames
    subsampling.py  log-mel frames to encoder frames, 8 to 1
    attention.py    self-attention over a chunk and the cached frames before it
    convolution.py  causal convolution over the chunk and the cached frames before it
    conformer.py    one block: feed-forward, attention, convolution, feed-forward
    encoder.py      subsampling and all blocks
    prediction.py   labels so far to one vector
    joint.py        an encoder frame and that vector to scores of labels
    transducer.py   encoder, prediction network and joint network
    parameters.py   parameters by name; the model as a flat pytree

Nothing here imports audio, text, recognition, serving or training.
"""
