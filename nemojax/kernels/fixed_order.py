"""The same bits whatever the company: a form of the model, for a CPU, in which the shape of a step changes no sum.

XLA chooses the order of a sum by the shape of its arrays. A frame's values therefore differ in their last bits between
a live chunk and a segment of a recording, or between batches of 1 and of 8. They are right within rounding, but where
two labels are nearly alike, another one may win. In this form every sum is in an order that depends on its own row
alone, so labels, frames and log-probabilities are the same bits at any batch
size, segment length and cut of a stream, and in the engine.

Products of all layers, of mel filters too, are by the panel kernel; layer norms, convolutions, attention and
log-sum-exp by kernels of their own (`fixed_layers.py`). What is left to XLA has no sum whose order could change:
functions of one value. `tests/kernels/test_first_difference.py` names the operation if a later XLA changes that.

The promise holds on one machine and for one version of nemojax and jax: exp, log, tanh and the FFT are XLA's own.

There is no such form for a GPU yet. Libraries there choose tiles, and how a sum is split, by shape, and jax's
deterministic options give the same bits for the same shape only. The cheapest way would be one executable of a fixed
number of rows and one chunk, for live streams and recordings alike. The faster one would be kernels of our own for
products, norms and attention, with tiles of a fixed size, no split sums, and keys in tiles that begin at multiples of a
chunk.
"""

from typing import Any

from flax import nnx

from nemojax.kernels.fixed_layers import (
    FixedAttention,
    FixedConvolutionModule,
    FixedFeedForward,
    FixedJoint,
    FixedLayerNorm,
    FixedLSTMLayer,
    FixedSubsampling,
    mel_energies,
)
from nemojax.kernels.quantization import PackedLinear, pack
from nemojax.model.attention import Attention
from nemojax.model.conformer import FeedForward
from nemojax.model.convolution import ConvolutionModule
from nemojax.model.layers import LayerNorm, Linear
from nemojax.model.prediction import LSTMLayer
from nemojax.model.subsampling import Subsampling
from nemojax.model.transducer import Transducer


def is_fixed(model: Transducer) -> bool:
    """Whether the model is in this form."""
    return isinstance(model.joint, FixedJoint)


def fix_order(model: Transducer) -> Transducer:
    """Returns the same model with every sum in a fixed order; blocks keep their kernels' type, all else is float32."""
    model = pack(model)
    model.mel_energies = mel_energies
    model.joint = FixedJoint(model.joint)
    replaced: dict[type, Any] = {
        Attention: FixedAttention,
        ConvolutionModule: FixedConvolutionModule,
        FeedForward: FixedFeedForward,
        LayerNorm: FixedLayerNorm,
        Linear: lambda linear: PackedLinear(linear, int8=False),
        LSTMLayer: FixedLSTMLayer,
        Subsampling: FixedSubsampling,
    }
    for _, module in list(nnx.iter_modules(model)):
        for name, part in list(vars(module).items()):
            if type(part) in replaced and name != "position":  # positions are projected once
                setattr(module, name, replaced[type(part)](part))
    return model
