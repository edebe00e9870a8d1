"""NeMo's and transformers' model on the same random weights: what nemojax is compared with.

tokenizer.py            a SentencePiece model of made-up words
nemo_model.py           NeMo's model, built, and run with every seam recorded
transformers_model.py   the same of transformers, on NeMo's weights
traces.py               the form in which both are recorded
sound.py                something to hear

Needs the parity extra (torch, NeMo, transformers); they are imported where they are used.
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
