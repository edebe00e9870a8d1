import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.training.presets import Experiment
from experiments.training.start import read_model, start
from nemojax import checkpoint
from nemojax.errors import ConfigError
from nemojax.kernels.quantization import quantize
from nemojax.model.parameters import named_parameters
from tests.helpers.messages import ending


def test_weights_in_int8_are_refused(tmp_path, tiny_model):
    checkpoint.save(tmp_path / "int8", quantize(tiny_model), b"", {})
    message = "int8 has weights in int8; take the checkpoint that it was made from instead"
    with pytest.raises(ConfigError, match=ending(message)):
        read_model(tmp_path / "int8")
    with pytest.raises(ConfigError, match=ending(message)):
        start(Experiment(run=Path("run"), init=tmp_path / "int8"))


def test_a_checkpoints_own_tokenizer_draws_nothing_again(settings, checkpoint_directory):
    given = dataclasses.replace(settings, init=checkpoint_directory, tokenizer=checkpoint_directory / "tokenizer.model")
    started, (model, tokenizer, _) = start(given), read_model(checkpoint_directory)
    assert started.drawn == () and started.tokenizer == tokenizer
    jax.tree.map(np.testing.assert_array_equal, named_parameters(started.model), named_parameters(model))
