"""The compiled step."""

import functools
import os

import jax

from nemojax.decoding.state import Emission
from nemojax.model.parameters import FrozenModel
from nemojax.model.transducer import Transducer
from nemojax.streaming import Constants, Segment, StreamState, step

# On a GPU a live step is many small kernels, which XLA can record and launch at once. The search for labels is a loop,
# so loops and conditionals are to be recorded too.
RECORDED = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"


GPU_OPTIONS = {"xla_gpu_enable_command_buffer": RECORDED, "xla_gpu_graph_min_graph_size": 1}


COMMAND_BUFFERS_SWITCH = "NEMOJAX_COMMAND_BUFFERS"


@functools.cache
def jit_step():
    """`step` as `jax.jit` makes it for this machine. NEMOJAX_COMMAND_BUFFERS=0 leaves XLA's own options on a GPU."""
    recorded = jax.default_backend() == "gpu" and os.environ.get(COMMAND_BUFFERS_SWITCH) != "0"
    options = GPU_OPTIONS if recorded else None
    return jax.jit(step, static_argnames="lookahead", donate_argnames="state", compiler_options=options)


def step_jit(
    model: Transducer | FrozenModel, constants: Constants, state: StreamState, segment: Segment, lookahead: int
) -> tuple[StreamState, Emission]:
    """`step`, compiled at its first call; the state given is used up."""
    return jit_step()(model, constants, state, segment, lookahead=lookahead)
