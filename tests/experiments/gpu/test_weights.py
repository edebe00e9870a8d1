"""Random weights whose joint network is balanced, and a tokenizer of any size."""

import numpy as np

from experiments.gpu import weights
from nemojax.bundled import SMALL
from nemojax.config import PRESETS
from nemojax.model.parameters import fill, freeze, thaw


def test_blank_is_equally_likely_after_every_label():
    rng = np.random.default_rng(0)
    arrays = weights.draw(PRESETS["tiny"], 0)
    encoded = rng.standard_normal((600, 32)).astype(np.float32) * np.geomspace(1, 100, 32, dtype=np.float32) + 5
    predicted = rng.standard_normal((600, 24)).astype(np.float32)
    new = weights.balance_joint(arrays, encoded, predicted, PRESETS["tiny"].blank)
    assert {name: value.shape for name, value in new.items()} == {name: arrays[name].shape for name in new}
    frames, labels = (
        x @ new[f"joint.{n}.kernel"] + new[f"joint.{n}.bias"]
        for n, x in (("encoder", encoded), ("prediction", predicted))
    )
    hidden = np.maximum(frames[:200, None] + labels[None, :200], 0)
    logits = (hidden @ new["joint.output.kernel"] + new["joint.output.bias"])[..., PRESETS["tiny"].blank]
    f, p = frames[:200, None, ::4], labels[None, :200, ::4]
    expected = (np.abs(f + p) - np.abs(f - p)).sum(-1)
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.99
    assert logits.mean(0).std() < logits.std() / 3 and logits.mean(1).std() < logits.std() / 3


def test_only_the_bias_on_blank_is_replaced():
    config = PRESETS["tiny"]
    model = freeze(weights.placed(config, weights.draw(config, 0), np.float32))
    changed = thaw(weights.with_blank_bias(model, 7.5)).joint.output.bias[...]
    before = np.asarray(thaw(model).joint.output.bias[...])
    assert changed[config.blank] == 7.5 and np.array_equal(changed[: config.blank], before[: config.blank])
    assert freeze(fill(config, weights.draw(config, 0))).structure == model.structure  # a compiled program serves both


def test_synthetic_pieces_fill_a_tokenizer():
    model = (SMALL / "tokenizer.model").read_bytes()
    for pieces in (64, 300):
        tokenizer = weights.tokenizer(model, pieces)
        assert tokenizer.size == pieces and isinstance(tokenizer.decode([pieces - 1, 1]), str)
