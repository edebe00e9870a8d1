"""Activations of large size in bfloat16: half the bytes to move, where weights are bfloat16 as well.

A product accumulates in float32 and stores bfloat16, which the next layer reads; so do the stages of the subsampling.
Norms, residual sums, scores of attention and the search stay float32, and so does the log-mel input.
"""

import jax

from nemojax.model.layers import Linear
from nemojax.model.transducer import Transducer


def narrow(model: Transducer) -> Transducer:
    """Returns the same model with outputs of products, and frames between stages of the subsampling, in bfloat16."""
    model = jax.tree.map(lambda x: x, model)  # modules of its own, of the same arrays
    model.encoder.subsampling.rounded = "bfloat16"
    for block in model.encoder.blocks:
        for part in (block.feedforward1, block.attention, block.convolution, block.feedforward2):
            for name, layer in vars(part).items():
                if isinstance(layer, Linear) and name != "position":  # positions are projected once, outside the step
                    layer.rounded = "bfloat16"
    return model
