"""Random weights that emit labels at the rate of speech, drawn on the host, and a tokenizer of their size."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sentencepiece import sentencepiece_model_pb2

from nemojax.config import ModelConfig
from nemojax.model.parameters import FrozenModel, abstract_model, fill, named_parameters, thaw
from nemojax.model.subsampling import LOG_MEL_DEVIATION, LOG_MEL_MEAN
from nemojax.model.transducer import Transducer
from nemojax.text.tokenizer import Tokenizer

GAIN, SUBSAMPLING_GAIN = 1 / 3, 2.0  # of a kernel's variance, times its inputs
LSTM_GAIN = 16.0  # large: otherwise the state after a repeated label hardly changes
LABEL_LOGIT_SCALE, BLANK_LOGIT_SCALE = 1.0, 4.0  # deviations
USUAL_BIAS = 4.6  # on blank, of a balanced joint network

Arrays = dict[str, np.ndarray]


def draw(config: ModelConfig, seed: int) -> Arrays:
    """Draws every parameter in float32, by its path; uniform, because normal numbers take ten times as long."""
    shapes = {name: leaf.shape for name, leaf in named_parameters(abstract_model(config)).items()}
    rng = np.random.default_rng(seed)

    def uniform(shape: tuple[int, ...], deviation: float) -> np.ndarray:
        values = rng.random(shape, np.float32)
        values -= 0.5
        values *= np.float32(12**0.5 * deviation)
        return values

    def array(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith("embedding"):
            return uniform(shape, 1.0)
        if not name.endswith("kernel"):
            return uniform(shape, 0.1) + np.float32(name.endswith("scale"))
        gain = SUBSAMPLING_GAIN if ".subsampling." in name else LSTM_GAIN if ".lstm." in name else GAIN
        return uniform(shape, (gain / np.prod(shape[:-1])) ** 0.5)

    arrays = {name: array(name, shape) for name, shape in shapes.items()}
    arrays["prediction.embedding"][config.blank] = 0.0
    first = arrays["encoder.subsampling.conv_in.kernel"]
    first /= LOG_MEL_DEVIATION
    arrays["encoder.subsampling.conv_in.bias"] = -LOG_MEL_MEAN * first.sum((0, 1, 2))
    return arrays


def placed(config: ModelConfig, arrays: Mapping[str, np.ndarray], dtype: Any) -> Transducer:
    """Returns the model on the default device; the host converts the arrays to `dtype`."""
    return fill(config, {name: jnp.asarray(value.astype(dtype)) for name, value in arrays.items()})


def predictions(model: Transducer, count: int, labels: int, seed: int) -> np.ndarray:
    """Returns outputs of the prediction network late in sequences of random labels, [count * labels, P]."""
    drawn = np.random.default_rng(seed).integers(0, model.config.blank, (count, 4 * labels))
    y = jax.jit(lambda model, labels: model.prediction.sequence(labels))(model, jnp.asarray(drawn, jnp.int32))
    return np.asarray(y[:, -labels:], np.float32).reshape(-1, y.shape[-1])


def whitening(samples: np.ndarray, random: np.ndarray) -> np.ndarray:
    """Returns a projection of vectors to uncorrelated units of equal variance, [D, units].

    Encoder frames of random weights vary in a few directions; here the largest directions have equal weight.

    Args:
      random: a matrix of the projection's shape, which mixes the directions.
    """
    centered = samples - samples.mean(0)
    _, values, directions = np.linalg.svd(centered.astype(np.float64), full_matrices=False)
    units = min(random.shape[1], len(values))
    mixed, _ = np.linalg.qr(random[:units].T if units < random.shape[1] else random[:units])
    scaled = directions[:units].T / np.maximum(values[:units], 1e-6 * values[0])
    return np.asarray(scaled @ (mixed.T if units < random.shape[1] else mixed), np.float32)


def balance_joint(arrays: Arrays, encoded: np.ndarray, predicted: np.ndarray, blank: int) -> Arrays:
    """Returns new weights of the joint network, with which a label is equally likely after every label.

    With plain random weights a stream emits labels at every frame or at none: the contributions of a frame and of a
    label to blank's logit hardly change. Here units come in fours, f + p, -f - p, f - p and p - f before their ReLU.
    Blank's logit is the first two minus the others: |f + p| - |f - p|, whose mean is 0 for every f and for every p. So
    each frame and each label decides anew whether a label follows.

    Args:
      encoded: encoder frames, [N, D].
      predicted: outputs of the prediction network, [M, P].
    """
    new: Arrays = {}
    count, width = min(len(encoded), len(predicted)), arrays["joint.output.kernel"].shape[0]
    inputs = []
    for name, samples, signs in (("encoder", encoded, (1, -1, 1, -1)), ("prediction", predicted, (1, -1, -1, 1))):
        base = whitening(samples, arrays[f"joint.{name}.kernel"][:, : -(-width // 4)])
        y = samples.astype(np.float32) @ base
        middle = np.median(y, 0)
        y -= middle
        factor = 0.67 / np.maximum(np.median(np.abs(y), 0), 1e-6)  # the median: a few frames are outliers
        new[f"joint.{name}.kernel"] = np.kron(base * factor, np.array([signs], np.float32))[:, :width]
        new[f"joint.{name}.bias"] = np.kron(-middle * factor, np.array(signs, np.float32))[:width]
        inputs.append(samples[:count] @ new[f"joint.{name}.kernel"] + new[f"joint.{name}.bias"])
    kernel = arrays["joint.output.kernel"].copy()
    kernel[:, blank] = np.resize(np.array([1, 1, -1, -1], np.float32), width)
    logits = np.maximum(inputs[0] + inputs[1], 0) @ kernel
    scale = np.full(kernel.shape[1], LABEL_LOGIT_SCALE)
    scale[blank] = BLANK_LOGIT_SCALE
    factor = scale / np.maximum(logits.std(0), 1e-6)
    new["joint.output.kernel"] = kernel * factor
    new["joint.output.bias"] = -logits.mean(0) * factor
    return {name: value.astype(np.float32) for name, value in new.items()}


def with_blank_bias(model: FrozenModel, bias: float) -> FrozenModel:
    """Returns the same model with another bias on blank; a program compiled for one serves the other."""
    config = thaw(model).config
    names = list(named_parameters(thaw(model)))
    index = names.index("joint.output.bias")
    leaves = list(model.leaves)
    leaves[index] = leaves[index].at[config.blank].set(bias)
    return FrozenModel(leaves, model.structure)


def tokenizer(model: bytes, pieces: int) -> Tokenizer:
    """Returns a tokenizer of `pieces` pieces: those of a SentencePiece model, and synthetic words after them."""
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(model)
    del proto.pieces[pieces:]
    for number in range(len(proto.pieces), pieces):
        proto.pieces.add(piece=f"▁word{number}", score=-1000.0 - number, type=1)
    proto.trainer_spec.vocab_size = pieces
    return Tokenizer(proto.SerializeToString())
