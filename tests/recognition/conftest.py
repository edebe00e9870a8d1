import numpy as np
import pytest
import soundfile

from nemojax.recognition.bulk import transcribe_manifest
from tests.recognition.jobs import COUNT, LOOKAHEAD, StubRecognizer, merged, write_corpus


@pytest.fixture
def stub():
    return StubRecognizer()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("bulk"), np.random.default_rng(0).uniform(0.3, 30.0, COUNT).round(2))


@pytest.fixture(scope="module")
def undisturbed(manifest, tmp_path_factory):
    """The merged files of one process that nothing disturbs."""
    output = tmp_path_factory.mktemp("undisturbed") / "new" / "out"
    outcome = transcribe_manifest(StubRecognizer(), manifest, output, LOOKAHEAD, batch_size=4)
    assert outcome == (COUNT + 3, COUNT + 3, 3)
    return merged(output)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory, speech):
    """The same manifest beside audio of 0.3 to 7 s."""
    directory, rng = tmp_path_factory.mktemp("spoken"), np.random.default_rng(0)
    seconds = rng.uniform(0.3, 7.0, COUNT).round(2)
    for number, duration in enumerate(seconds):
        x = np.resize(np.roll(np.asarray(speech), 5000 * number), round(16_000 * duration))
        soundfile.write(directory / f"{number}.wav", x, 16_000, subtype="FLOAT")
    (directory / "broken.wav").write_text("not audio")
    return write_corpus(directory, seconds)
