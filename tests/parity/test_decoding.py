"""Prediction network, joint network and greedy decoding: every number on the way, and identical tokens and frames."""

import numpy as np
import pytest

from nemojax.text.tokenizer import Tokenizer
from tests.parity.seams import until

pytestmark = pytest.mark.parity

LOOKAHEADS = [0, 1, 6, 13]
SEAMS = {
    "projected": "joint.projected",
    "outputs": "prediction.outputs",
    "hidden": "prediction.hidden",
    "cell": "prediction.cell",
    "predictions": "joint.predictions",
    "logits": "joint.logits",
}


def decoded_by_generate(pair) -> list[str]:
    """transformers' own decoding takes milliseconds a frame, so two recordings are decoded."""
    return [*pair.speech][:1] + ["2.5 s of glides"]


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_networks(pair, seams, lookahead):
    """On nemojax's own encoding, for the labels that the references emit."""
    for name, run in pair.nemojax_stream(lookahead).items():
        nemo = pair.decoding(lookahead)[name]
        encoded = pair.transformers_offline(lookahead)[name]["encoder"]
        decodings = {"NeMo": nemo, "transformers": pair.transformers.double_loop(encoded)}
        for reference, decoding in decodings.items():
            ours = pair.nemojax.decoding(run.trace["encoder"], decoding.tokens, decoding.looked)
            for field, seam in SEAMS.items():
                where = f"{pair.name}, R={lookahead}, {name}"
                seams.compare(reference, seam, ours[field], getattr(decoding, field), where)


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_tokens_and_frames(pair, seams, lookahead):
    """The references' own decoders, offline and streaming, and nemojax's, against the double loop on NeMo's layers."""
    blank = pair.nemo.blank
    emitted = 0
    for name, decoding in pair.decoding(lookahead).items():
        where = f"{pair.name}, R={lookahead}, {name}"
        same = lambda label, tokens, frames, decoding=decoding, where=where: seams.compare_tokens(
            label, decoding, blank, tokens, frames, where
        )
        offline, stream = pair.nemojax_offline(lookahead)[name], pair.nemojax_stream(lookahead)[name]
        same("nemojax offline", offline.tokens, offline.frames)
        same("nemojax stream", stream.tokens, stream.frames)
        tokens, frames, _ = pair.nemo.decode(pair.nemo_offline(lookahead)[name]["encoder"])
        same("NeMo", tokens, frames)
        if name in decoded_by_generate(pair):
            samples = pair.recordings(lookahead)[name]
            same("transformers", *pair.transformers.generate(samples, lookahead, streaming=False))
        emitted += len(decoding.tokens)
    assert emitted > 20, "the models hardly spoke; the comparison would prove little"


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_streamed_tokens(pair, seams, lookahead):
    """The references' own streams take whole chunks only: their tokens are the beginning of nemojax's."""
    for name, decoding in pair.decoding(lookahead).items():
        where = f"{pair.name}, R={lookahead}, {name}"
        begun = until(decoding, len(pair.transformers_stream(lookahead)[name]) * (lookahead + 1))
        if name in decoded_by_generate(pair):
            tokens, frames = pair.transformers.generate(pair.recordings(lookahead)[name], lookahead, streaming=True)
            seams.compare_tokens("transformers stream", begun, pair.nemo.blank, tokens, frames, where)
        if lookahead:
            assert pair.nemo.decode_stream(pair.nemo_stream(lookahead)[name]) == begun.tokens.tolist(), where


def test_texts(pair):
    """Text is that of NeMo's tokenizer, and NeMo's own once spaces before punctuation are gone, as NeMo has it.

    The unknown piece, label 0, has no text here, and is " \u2047 " in NeMo's.
    """
    tokenizer, nemo = Tokenizer(pair.source.tokenizer), pair.nemo
    for name, trace in pair.nemo_offline(13).items():
        tokens, _, text = nemo.decode(trace["encoder"])
        assert tokenizer.decode(tokens) == nemo.model.tokenizer.ids_to_text(tokens), name
        assert nemo.tidied(tokenizer.decode(tokens)) == text, name
    rng = np.random.default_rng(pair.seed)
    for _ in range(20):
        tokens = rng.permutation(np.arange(1, tokenizer.size)).tolist()
        assert tokenizer.decode([*tokens, 0]) == tokenizer.decode(tokens) == nemo.model.tokenizer.ids_to_text(tokens)
        text = nemo.model.decoding.decode_tokens_to_str_with_strip_punctuation(tokens)
        assert nemo.tidied(tokenizer.decode(tokens)) == text
