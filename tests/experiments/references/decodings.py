"""A decoding with few numbers."""

import numpy as np

from experiments.references.traces import Decoding

BLANK = 3


def decoding(*looks: tuple[int, int, list[float]]) -> Decoding:
    """Of evaluations (frame, labels so far, logits), three frames in all."""
    chosen = [(frame, int(np.argmax(logits))) for frame, _, logits in looks]
    spoken = [(frame, label) for frame, label in chosen if label != BLANK]
    nothing = np.zeros((0, 1), np.float32)
    return Decoding(
        tokens=np.array([label for _, label in spoken], np.int32),
        frames=np.array([frame for frame, _ in spoken], np.int32),
        looked=np.array([look[:2] for look in looks], np.int32),
        logits=np.array([look[2] for look in looks], np.float32),
        **dict.fromkeys(("projected", "outputs", "hidden", "cell", "predictions"), nothing),
    )


# label 1 at frame 0, nothing at frame 1, label 2 at frame 2
REFERENCE = decoding(
    (0, 0, [0.0, 5.0, 0.0, 4.5]),
    (0, 1, [0.0, 1.0, 2.0, 6.0]),
    (1, 1, [0.0, 1.0, 3.75, 4.0]),
    (2, 1, [0.0, 1.0, 8.0, 5.0]),
    (2, 2, [0.0, 1.0, 0.0, 7.0]),
)
