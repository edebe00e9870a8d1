"""From archives that NeMo and transformers wrote to text, through the converter and what users call."""

import numpy as np
import pytest

import nemojax
from convert.__main__ import main
from experiments.references import SIZES, transformers_model
from nemojax import checkpoint
from nemojax.model.parameters import named_parameters
from nemojax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def directories(pair, tmp_path_factory):
    """Converted from the .nemo archive, and from transformers' directory."""
    folder = tmp_path_factory.mktemp("converted")
    saved = folder / "saved"
    transformers_model.save(pair.transformers.model, SIZES[pair.name], pair.archive.parent / "tokenizer.model", saved)
    for form, source in ("nemo", pair.archive), ("hf", saved):
        main([form, str(source), str(folder / form)])
    return folder / "nemo", folder / "hf"


def test_both_archives_hold_one_model(directories):
    (first, config, tokenizer, _), (second, other_config, other_tokenizer, _) = map(checkpoint.load, directories)
    assert config == other_config
    first, second = named_parameters(first), named_parameters(second)
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    labels = np.random.default_rng(0).permutation(config.vocabulary).tolist()  # 0, the unknown piece, has no text
    texts = [Tokenizer(model).decode(labels) for model in (tokenizer, other_tokenizer)]
    assert texts[0] == texts[1]


@pytest.fixture(scope="module")
def recognizer(directories):
    return nemojax.load(directories[0])


@pytest.mark.parametrize("lookahead", [0, 1, 6, 13])
def test_transcripts(pair, seams, recognizer, lookahead):
    """Tokens, frames and text of the references: a batch of recordings, and streams pushed pieces of any size."""
    recordings = pair.recordings(lookahead)
    transcripts = recognizer.transcribe([*recordings.values()], lookahead=lookahead, batch_size=4)
    rng = np.random.default_rng(pair.seed)
    for (name, samples), transcript in zip(recordings.items(), transcripts, strict=True):
        where, decoding = f"{pair.name}, R={lookahead}, {name}", pair.decoding(lookahead)[name]
        stream, text, begin = recognizer.stream(lookahead), "", 0
        while begin < len(samples):
            end = begin + int(rng.choice([1, 160, 1280, 5000, 40_000]) * rng.uniform(0.5, 1.5)) + 1
            text, begin = text + stream.push(samples[begin:end]).text, end
        streamed = stream.finish()
        for label, result in ("transcribe", transcript), ("stream.push", streamed):
            seams.compare_tokens(label, decoding, pair.nemo.blank, result.tokens, result.frames, where)
            assert result.text == recognizer.tokenizer.decode(result.tokens), where
        # the text of NeMo's labels: after a near tie ours have another one
        labels, _, expected = pair.nemo.decode(pair.nemo_offline(lookahead)[name]["encoder"])
        assert recognizer.tokenizer.decode(labels) == expected, where
        assert streamed.text.startswith(text), where
