"""Random weights whose greedy search emits labels as often as speech has them, drawn on the host, leaf by leaf."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sentencepiece import sentencepiece_model_pb2

from nemojax import checkpoint
from nemojax.config import ModelConfig
from nemojax.subsampling import LOG_MEL_DEVIATION, LOG_MEL_MEAN
from nemojax.tokenizer import Tokenizer
from nemojax.transducer import FrozenModel, Transducer, thaw

LABELS_PER_FRAME = 0.3  # of English, at 80 ms a frame
GAIN, SUBSAMPLING_GAIN = 1 / 3, 2.0  # of a kernel's variance, times its inputs
LSTM_GAIN = 16.0  # as large as that, the state after a label that repeats does not settle
LABEL_LOGIT_SCALE, BLANK_LOGIT_SCALE = 1.0, 4.0  # deviations
USUAL_BIAS, LARGEST_BIAS = 4.6, 12.0  # on blank, of a balanced joint network
ROUNDS = 10  # of bisection

Arrays = dict[str, np.ndarray]


def draw(config: ModelConfig, seed: int) -> Arrays:
    """Every parameter in float32, by its path; uniform, for normal numbers take ten times as long."""
    shapes = {name: leaf.shape for name, leaf in checkpoint.named_parameters(checkpoint.abstract_model(config)).items()}
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
    """The model on the default device; arrays are narrowed on the host."""
    return checkpoint.fill(config, {name: jnp.asarray(value.astype(dtype)) for name, value in arrays.items()})


def predictions(model: Transducer, count: int, labels: int, seed: int) -> np.ndarray:
    """Outputs of the prediction network behind random labels, once it has seen many, [count * labels, P]."""
    drawn = np.random.default_rng(seed).integers(0, model.config.blank, (count, 4 * labels))
    y = jax.jit(lambda model, labels: model.prediction.sequence(labels))(model, jnp.asarray(drawn, jnp.int32))
    return np.asarray(y[:, -labels:], np.float32).reshape(-1, y.shape[-1])


def whitening(samples: np.ndarray, random: np.ndarray) -> np.ndarray:
    """A projection of vectors to uncorrelated units of equal variance, [D, units].

    What random weights make of speech varies in a few directions; here all of the largest directions count alike.

    Args:
      random: a matrix of the projection's shape, which mixes the directions.
    """
    centered = samples - samples.mean(0)
    _, values, directions = np.linalg.svd(centered.astype(np.float64), full_matrices=False)
    units = min(random.shape[1], len(values))
    mixed, _ = np.linalg.qr(random[:units].T if units < random.shape[1] else random[:units])
    scaled = directions[:units].T / np.maximum(values[:units], 1e-6 * values[0])
    return (scaled @ (mixed.T if units < random.shape[1] else mixed)).astype(np.float32)


def balance_joint(arrays: Arrays, encoded: np.ndarray, predicted: np.ndarray, blank: int) -> Arrays:
    """New weights of the joint network, for which a label is as likely behind one label as behind another.

    Plain random weights make a stream silent for good, or emit labels at every frame: what a frame adds to blank, and
    what a label does, lasts. Here units come in fours, f + p, -f - p, f - p and p - f behind their ReLU, of which blank
    takes the first two minus the others: |f + p| - |f - p|, whose mean is 0 for every f and for every p. So whether a
    label follows is decided anew at each frame and after each label.

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
        factor = 0.67 / np.maximum(np.median(np.abs(y), 0), 1e-6)  # a few frames lie far away from the others
        new[f"joint.{name}.kernel"] = np.kron(base * factor, np.float32([signs]))[:, :width]
        new[f"joint.{name}.bias"] = np.kron(-middle * factor, np.float32(signs))[:width]
        inputs.append(samples[:count] @ new[f"joint.{name}.kernel"] + new[f"joint.{name}.bias"])
    kernel = arrays["joint.output.kernel"].copy()
    kernel[:, blank] = np.resize(np.float32([1, 1, -1, -1]), width)
    logits = np.maximum(inputs[0] + inputs[1], 0) @ kernel
    scale = np.full(kernel.shape[1], LABEL_LOGIT_SCALE)
    scale[blank] = BLANK_LOGIT_SCALE
    factor = scale / np.maximum(logits.std(0), 1e-6)
    new["joint.output.kernel"] = kernel * factor
    new["joint.output.bias"] = -logits.mean(0) * factor
    return {name: value.astype(np.float32) for name, value in new.items()}


def with_blank_bias(model: FrozenModel, bias: float) -> FrozenModel:
    """The same model with another bias on blank; programs compiled for one serve the other."""
    config = thaw(model).config
    names = list(checkpoint.named_parameters(thaw(model)))
    index = names.index("joint.output.bias")
    leaves = list(model.leaves)
    leaves[index] = leaves[index].at[config.blank].set(bias)
    return FrozenModel(leaves, model.structure)


def calibrated(
    rate: Callable[[float], float], low: float, high: float, target: float = LABELS_PER_FRAME, rounds: int = ROUNDS
) -> tuple[float, float]:
    """The bias on blank, between two, at which the label rate is closest to a target, and that rate.

    Args:
      rate: gives labels per frame at a bias; it falls as the bias grows, but for noise.
    """
    tried: list[tuple[float, float]] = []
    for _ in range(rounds):
        bias = (low + high) / 2
        tried.append((bias, rate(bias)))
        if abs(tried[-1][1] - target) < 0.1 * target:
            break
        low, high = (bias, high) if tried[-1][1] > target else (low, bias)
    return min(tried, key=lambda pair: abs(pair[1] - target))


def tokenizer(model: bytes, pieces: int) -> Tokenizer:
    """A tokenizer of that many pieces: those of a SentencePiece model, and made-up words after them."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    del proto.pieces[pieces:]
    for number in range(len(proto.pieces), pieces):
        proto.pieces.add(piece=f"▁word{number}", score=-1000.0 - number, type=1)
    proto.trainer_spec.vocab_size = pieces
    return Tokenizer(proto.SerializeToString())
