"""Audio files, and commands run in this process."""

import numpy as np
import pytest
import soundfile

from nemojax import cli


@pytest.fixture(scope="module")
def files(tmp_path_factory, speech):
    directory, x = tmp_path_factory.mktemp("audio"), np.asarray(speech)
    soundfile.write(directory / "a.wav", x[:40_000], 16_000, subtype="FLOAT")
    soundfile.write(directory / "b.flac", x, 16_000)
    soundfile.write(directory / "c.wav", np.stack([x[:44_100]] * 2, 1), 22_050)
    soundfile.write(directory / "silence.wav", np.zeros(8000, np.float32), 16_000)
    return directory


@pytest.fixture
def run(checkpoint_directory, capsys, recognizer, read_once):
    def run(*arguments, model=checkpoint_directory):
        code = cli.main([*map(str, arguments), *(["--model", str(model)] if model else [])])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
