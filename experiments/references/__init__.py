"""NeMo's and transformers' models, which nemojax is compared with.

    compare.py              a command: whether both give the same labels as nemojax
    agreement.py            the first choice on which two hypotheses differ, and tallies
    golden.py               a command: the golden values of tests/golden
    nemo_model.py           NeMo's model on random weights, and its values at every seam
    transformers_model.py   the same of transformers, on NeMo's weights
    traces.py               the form of those values
    tokenizer.py            a SentencePiece model of random words
    sound.py                sounds for tests without speech

They need the parity extra (torch, NeMo, transformers), which is imported where it is used.
"""

from dataclasses import dataclass

MAX_SYMBOLS_PER_FRAME = 10


@dataclass(frozen=True)
class Size:
    """Settings of a reference model, in the family's terms."""

    mels: int
    layers: int
    width: int
    heads: int
    feedforward_factor: int
    channels: int  # of the subsampling
    prediction_width: int  # transformers has no joint network of another width
    prediction_layers: int
    vocabulary: int
    use_bias: bool = False
    scale_input: bool = False
    left_context_frames: int = 70
    lookaheads: tuple[int, ...] = (13, 6, 1, 0)


SIZES = {
    "tiny": Size(128, 3, 64, 4, 4, 32, 48, 2, 96),
    # the 114M models' features: 80 mels, biases, input scaling, a one-layer prediction network
    "tinybias": Size(80, 2, 48, 2, 2, 16, 32, 1, 64, use_bias=True, scale_input=True),
    # another left context: recordings of a few seconds leave it
    "short": Size(128, 2, 32, 4, 4, 8, 24, 2, 64, left_context_frames=28),
    "full": Size(128, 24, 1024, 8, 4, 256, 640, 2, 1024),
}
