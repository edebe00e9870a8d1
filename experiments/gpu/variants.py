"""Forms of the model that are compared: they hold the same parameters."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from nemojax.kernels.fused_attention import fuse
from nemojax.kernels.selection import sized
from nemojax.model.layers import Linear
from nemojax.model.transducer import Transducer


class NarrowLinear(nnx.Module):
    """A trial: a `Linear` whose output has its kernel's type. Sums inside a product stay float32."""

    def __init__(self, linear: Linear):
        self.kernel, self.bias = linear.kernel, linear.bias

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...]
        y = jnp.einsum("...i,io->...o", x.astype(kernel.dtype), kernel, preferred_element_type=kernel.dtype)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


def narrowed(model: Transducer) -> Transducer:
    """Returns the same model with `NarrowLinear` layers in its blocks."""
    model = jax.tree.map(lambda x: x, model)  # a tree of its own, of the same arrays
    for block in model.encoder.blocks:
        for module in (block.feedforward1, block.attention, block.convolution, block.feedforward2):
            layers = [(name, layer) for name, layer in vars(module).items() if isinstance(layer, Linear)]
            for name, layer in layers:
                if name != "position":  # positions are projected once, outside the step
                    setattr(module, name, NarrowLinear(layer))
    return model


def variant(model: Transducer, name: str) -> Transducer:
    """Returns the model as "plain", "fused" (attention in one kernel) or "narrow" (fused, with `NarrowLinear` layers).

    Without a GPU the kernel is interpreted, which is slow.
    """
    model = sized(model)
    if name == "plain":
        return model
    if name == "narrow":
        model = narrowed(model)
    return fuse(model, interpret=jax.default_backend() != "gpu")
