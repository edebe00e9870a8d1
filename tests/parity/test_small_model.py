"""The small model that comes with the package says the same in NeMo and in transformers, of real speech."""

import pytest

from experiments.references.agreement import listing
from experiments.references.compare import compare, load_references, read_recordings
from nemojax import bundled
from nemojax.recognition.recognizer import load
from tests.parity.audio import SPEECH

RECORDINGS = 3  # of each dev set, spread over it; `python -m experiments compare_references` takes all of them
MAX_NEAR_TIES = 1  # recordings of a dev set at a look-ahead

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not (bundled.SMALL / "config.json").exists(), reason=f"there is no model at {bundled.SMALL}"),
    pytest.mark.skipif(not (SPEECH / "dev").is_dir(), reason=f"there is no speech at {SPEECH}; set NEMOJAX_SPEECH"),
]


@pytest.fixture(scope="module")
def models():
    """nemojax's, and the references'."""
    return load(bundled.SMALL), load_references(bundled.SMALL)


@pytest.mark.parametrize("lookahead", [13, 6, 1, 0])
@pytest.mark.parametrize("corpus", ["grid", "fsdd", "ljspeech", "librispeech_clean"])
def test_texts(models, corpus, lookahead):
    """Offline and streaming; a text may differ where rounding alone decides, which is rare."""
    recognizer, references = models
    manifest, errors = SPEECH / "dev" / f"{corpus}.jsonl", []
    recordings = read_recordings(manifest, RECORDINGS, recognizer.config, errors.append)
    assert not errors and len(recordings) == RECORDINGS
    found = list(compare(recognizer, references, recordings, lookahead))
    # nemojax's two modes with both references offline; its stream with both references', NeMo's not at look-ahead 0
    assert len(found) == RECORDINGS * (6 if lookahead else 5)
    assert sum(comparison.labels for comparison in found) >= len(found), "the model hardly speaks; this proves little"
    differing = [comparison for comparison in found if comparison.difference is not None]
    assert all(comparison.difference.near_tie for comparison in differing), listing(differing)
    assert len({comparison.recording for comparison in differing}) <= MAX_NEAR_TIES, listing(differing)
