import subprocess
import sys

import pytest

# In a process of its own: the checks of types in tests hold the arguments of functions.
PROGRAM = """
import sys, weakref
from nemojax.config import PRESETS
from nemojax.kernels import native, quantization, selection
from tests.conftest import random_model

native.unavailable_reason = lambda: None
models = [random_model(PRESETS["tiny"])]
kernels = [weakref.ref(getattr(module, name).kernel[...]) for module, name in quantization._layers(models[0])]
if sys.argv[1] == "int8":
    kernels += [weakref.ref(block.attention.position.kernel[...]) for block in models[0].encoder.blocks]
PackedLinear = quantization.PackedLinear

class Watched(PackedLinear):
    def __init__(self, linear, int8):
        super().__init__(linear, int8)
        print(sum(kernel() is not None for kernel in kernels))

quantization.PackedLinear = Watched
selection.for_backend(models.pop(), int8=sys.argv[1] == "int8", kernels=sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype,kernels,count", [("int8", "xla", 22), ("float32", "native", 20)])
def test_a_kernel_is_freed_once_it_is_packed(dtype, kernels, count):
    """So that a model which nothing else holds is never in memory twice."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, dtype, kernels], capture_output=True, text=True, check=True)
    alive = list(map(int, done.stdout.split()))
    assert alive == list(range(len(alive), 0, -1)) and len(alive) == count
