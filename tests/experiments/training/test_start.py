from pathlib import Path

import pytest

from experiments.training.presets import Experiment
from experiments.training.start import read_model, start
from nemojax import checkpoint
from nemojax.errors import ConfigError
from nemojax.kernels.quantization import quantize
from tests.helpers.messages import ending


def test_weights_in_int8_are_refused(tmp_path, tiny_model):
    checkpoint.save(tmp_path / "int8", quantize(tiny_model), b"", {})
    message = "int8 has weights in int8; take the checkpoint that it was made from instead"
    with pytest.raises(ConfigError, match=ending(message)):
        read_model(tmp_path / "int8")
    with pytest.raises(ConfigError, match=ending(message)):
        start(Experiment(run=Path("run"), init=tmp_path / "int8"))
