import jax
import numpy as np
import pytest

from tests.helpers.definitions import layer_norm, linear, normal, sigmoid, silu
from tests.helpers.streaming import assert_streams


def textbook(module, x: np.ndarray, length: int) -> np.ndarray:
    """One recording, one output frame and one tap at a time."""
    gate = linear(module.pointwise1, x[:length])
    gated = gate[:, : gate.shape[1] // 2] * sigmoid(gate[:, gate.shape[1] // 2 :])
    kernel, bias = np.asarray(module.depthwise.kernel[...]), module.depthwise.bias
    rows = []
    for t in range(length):
        total = np.zeros(gated.shape[1], np.float32) if bias is None else np.asarray(bias[...])
        for tap in range(kernel.shape[0]):
            source = t - (kernel.shape[0] - 1) + tap
            total = total + (gated[source] * kernel[tap] if source >= 0 else 0.0)
        rows.append(total)
    return linear(module.pointwise2, silu(layer_norm(module.norm, np.stack(rows))))


@pytest.fixture(params=["tiny", "family"])
def block(request, tiny_model, family_model):
    model = {"tiny": tiny_model, "family": family_model}[request.param]
    return model.encoder.blocks[1].convolution, model.config.encoder


def test_frames_are_those_of_the_definition(block):
    module, config = block
    x, length = normal(0, 2, 12, config.width), [12, 5]
    y, _ = jax.jit(module.step)(x, np.arange(12) < np.array(length)[:, None], module.initial_cache(2))
    for row, n in enumerate(length):
        np.testing.assert_allclose(y[row, :n], textbook(module, x[row], n), atol=1e-5)


@pytest.mark.parametrize("size,dtype", [(1, "float32"), (2, "float32"), (4, "bfloat16"), (14, "float32")])
def test_streams(block, size, dtype):
    module, config = block
    x, mask = normal(1, 3, 28, config.width), np.arange(28) < np.array([28, 17, 1])[:, None]
    assert_streams(module.step, x, mask, module.initial_cache(3, dtype), size)


def test_a_cache_has_its_own_type_if_one_is_set(block):
    module = jax.tree.map(lambda x: x, block[0])
    module.cache_dtype = "bfloat16"
    assert module.initial_cache(1).frames.frames.dtype == "bfloat16"
