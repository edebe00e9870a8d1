"""Forms of the model that are compared: they hold the same parameters."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from nemojax.fused_attention import fuse
from nemojax.layers import Linear
from nemojax.transducer import Transducer


class NarrowLinear(nnx.Module):
    """A trial: a `Linear` whose result has the type of its kernel. Sums inside a product stay float32."""

    def __init__(self, linear: Linear):
        self.kernel, self.bias = linear.kernel, linear.bias

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...]
        y = jnp.einsum("...i,io->...o", x.astype(kernel.dtype), kernel, preferred_element_type=kernel.dtype)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


def narrowed(model: Transducer) -> Transducer:
    """The same model, whose blocks' linear layers give the type of their kernels."""
    model = jax.tree.map(lambda x: x, model)  # a tree of its own, of the same arrays
    for block in model.encoder.blocks:
        for module in (block.feedforward1, block.attention, block.convolution, block.feedforward2):
            layers = [(name, layer) for name, layer in vars(module).items() if isinstance(layer, Linear)]
            for name, layer in layers:
                if name != "position":  # positions are projected once, outside the step
                    setattr(module, name, NarrowLinear(layer))
    return model


def variant(model: Transducer, name: str) -> Transducer:
    """The model as "plain", "fused" (attention in one kernel) or "narrow" (fused, and bfloat16 out of linear layers).

    Without a GPU the kernel is interpreted, which is slow.
    """
    if name == "plain":
        return model
    if name == "narrow":
        model = narrowed(model)
    return fuse(model, interpret=jax.default_backend() != "gpu")
