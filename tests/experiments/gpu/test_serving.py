"""The segments in which whole recordings are computed."""

from experiments.gpu import serving, weights
from nemojax.bundled import SMALL
from nemojax.config import PRESETS


def test_segments_of_recordings():
    config = PRESETS["tiny"]
    tokenizer = weights.tokenizer((SMALL / "tokenizer.model").read_bytes(), config.vocabulary)
    assert serving.offline_segments(config, tokenizer, 30.0) == [179200, 358400]
