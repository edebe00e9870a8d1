"""The start of a run: a model, its tokenizer, and where both came from."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

import nemojax
from experiments.training.presets import Experiment
from experiments.training.run_directory import RunError
from nemojax import checkpoint
from nemojax.data.train_tokenizer import texts_of, train
from nemojax.errors import ConfigError
from nemojax.model.parameters import fill, named_parameters
from nemojax.model.transducer import Transducer
from nemojax.text.tokenizer import Tokenizer
from nemojax.training.new_vocabulary import BY_LABEL, with_vocabulary
from nemojax.training.recipe import TrainingConfig
from nemojax.training.state import partition

BLANK_SHARE = 0.75  # share of blanks in an alignment: 12.5 frames a second, and about four labels


class Start(NamedTuple):
    """What a run starts with."""

    model: Transducer
    tokenizer: bytes  # a SentencePiece model
    origin: dict[str, Any]  # of the weights, as in a native checkpoint's origin.json
    drawn: tuple[str, ...] = ()  # parameters of `init` that another tokenizer made it draw again


def start(experiment: Experiment) -> Start:
    """Returns a new model of the settings `experiment.model`, or the model of `experiment.init`, with its tokenizer.

    Raises:
      RunError: the tokenizer can't be read, or has not as many pieces as the model has labels.
      CheckpointError, ConfigError, TokenizerError: a file that the settings name is not valid.
    """
    tokenizer = read_tokenizer(experiment.tokenizer) if experiment.tokenizer is not None else None
    if experiment.init is None:
        if tokenizer is None:
            manifests = [source.manifest for source in experiment.sources()]
            tokenizer = train(texts_of(manifests), experiment.model.vocabulary)
        size = Tokenizer(tokenizer).size
        if size != experiment.model.vocabulary:
            raise RunError(
                f"the tokenizer has {size} pieces, the model {experiment.model.vocabulary}; "
                f"set --model.vocabulary {size}"
            )
        model = with_blank_prior(Transducer(experiment.model, rngs=nnx.Rngs(experiment.training.seed)))
        return Start(model, tokenizer, {"format": "nemojax", "nemojax": nemojax.__version__})
    model, saved_tokenizer, origin = read_model(experiment.init)
    renewed = tokenizer is not None and tokenizer != saved_tokenizer
    if tokenizer is not None and renewed:
        model = with_vocabulary(model, Tokenizer(tokenizer).size, experiment.training.seed)
    init = {"directory": experiment.init.name, "origin": origin}
    origin = {"format": "nemojax", "nemojax": nemojax.__version__, "init": init}
    drawn = BY_LABEL if renewed else ()
    return Start(model, tokenizer if tokenizer is not None else saved_tokenizer, origin, drawn)


def read_model(directory: Path) -> tuple[Transducer, bytes, dict[str, Any]]:
    """Reads the model, the tokenizer and the origin of a native checkpoint, in float32.

    Raises:
      CheckpointError: it is not a checkpoint.
      ConfigError: its weights are in int8, which have no gradients and no mean.
    """
    check_types(directory)
    model, _, tokenizer, origin = checkpoint.load(directory, jnp.float32)
    return model, tokenizer, origin


def check_types(directory: Path) -> None:
    """Raises ConfigError for a checkpoint with weights in int8."""
    if np.int8 in checkpoint.read_types(directory).values():
        raise ConfigError(f"{directory} has weights in int8; take the checkpoint that it was made from instead")


def check_trained(drawn: Iterable[str], parameters: Mapping[str, Any], recipe: TrainingConfig) -> None:
    """Raises ConfigError where a recipe does not train what another tokenizer draws again, or names no parameter."""
    trained, _ = partition(parameters, recipe)
    if left := [name for name in drawn if name not in trained]:
        raise ConfigError(
            f"another tokenizer draws {', '.join(left)} again, and they are not trained; add --train-only "
            '"joint|prediction", or remove what freezes them'
        )


def with_blank_prior(model: Transducer) -> Transducer:
    """Returns a fresh model whose output bias gives blank the probability `BLANK_SHARE`.

    Without it the first steps raise blank's probability through all layers: the encoder's output becomes one large
    constant, and the differences between frames are lost beside it.
    """
    odds = BLANK_SHARE / (1 - BLANK_SHARE) * model.config.vocabulary  # against each label
    named = named_parameters(model)
    bias = named["joint.output.bias"].at[model.config.blank].set(math.log(odds))
    return fill(model.config, named | {"joint.output.bias": bias})


def read_tokenizer(path: Path) -> bytes:
    """Reads a SentencePiece model. Raises RunError where the file can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"the tokenizer {path} can't be read: {error.strerror}") from None
