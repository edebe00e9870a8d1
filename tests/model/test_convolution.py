import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.streaming import assert_streams


def textbook(module, x: np.ndarray, length: int) -> np.ndarray:
    """One recording, one output frame and one tap at a time."""
    gate = module.pointwise1(x[:length])
    gated = gate[:, : gate.shape[1] // 2] * jax.nn.sigmoid(gate[:, gate.shape[1] // 2 :])
    kernel, bias = module.depthwise.kernel[...], module.depthwise.bias
    rows = []
    for t in range(length):
        total = jnp.zeros(gated.shape[1]) if bias is None else bias[...]
        for tap in range(kernel.shape[0]):
            source = t - (kernel.shape[0] - 1) + tap
            total = total + (gated[source] * kernel[tap] if source >= 0 else 0.0)
        rows.append(total)
    return module.pointwise2(jax.nn.silu(module.norm(jnp.stack(rows))))


@pytest.fixture(params=["tiny", "family"])
def block(request, tiny_model, family_model):
    model = {"tiny": tiny_model, "family": family_model}[request.param]
    return model.encoder.blocks[1].convolution, model.config.encoder


def test_frames_are_those_of_the_definition(block):
    module, config = block
    x = jax.random.normal(jax.random.key(0), (2, 12, config.width))
    mask = jnp.arange(12)[None] < jnp.array([12, 5])[:, None]
    y, _ = module.step(x, mask, module.initial_cache(2))
    np.testing.assert_allclose(y[0], textbook(module, x[0], 12), atol=1e-5)
    np.testing.assert_allclose(y[1, :5], textbook(module, x[1], 5), atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4, 14])
def test_streams(block, size):
    module, config = block
    x = jax.random.normal(jax.random.key(1), (3, 28, config.width))
    mask = jnp.arange(28)[None] < jnp.array([28, 17, 1])[:, None]
    assert_streams(module.step, x, mask, module.initial_cache(3), size)
