"""Chooses the form of the model that runs on this machine."""

import os

import jax

from nemojax.kernels import native
from nemojax.kernels.quantization import is_quantized, pack, quantize
from nemojax.model.parameters import parameter_count
from nemojax.model.transducer import Transducer

PACKED_PARAMETERS = 20_000_000  # smaller models are fast enough as they are, and nothing need be compiled for them


def for_backend(model: Transducer, int8: bool = False) -> Transducer:
    """As it computes fastest here: in int8 where that is asked for; on a CPU, if it is large, packed."""
    if int8:
        return model if is_quantized(model) else quantize(model)
    large = parameter_count(model) >= PACKED_PARAMETERS
    packs = large and not is_quantized(model) and jax.default_backend() == "cpu" and native.available()
    return pack(model) if packs else model


FUSED_ATTENTION_SWITCH = "NEMOJAX_FUSED_ATTENTION"


def with_fused_attention(model: Transducer) -> Transducer:
    """The same model; where $NEMOJAX_FUSED_ATTENTION is 1 and there is a GPU, its blocks attend by that kernel."""
    if os.environ.get(FUSED_ATTENTION_SWITCH) != "1" or jax.default_backend() != "gpu":
        return model
    from nemojax.kernels.fused_attention import fuse  # here, for importing Pallas takes time

    return fuse(model)
