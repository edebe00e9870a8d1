import jax
import numpy as np


def test_logits_are_those_of_the_definition(tiny_model):
    """log p = softmax(W_o relu(W_e e + b_e + W_p p + b_p) + b_o), one pair at a time."""
    joint = tiny_model.joint
    frames = jax.random.normal(jax.random.key(0), (5, tiny_model.config.encoder.width))
    predictions = jax.random.normal(jax.random.key(1), (3, tiny_model.config.prediction.width))
    logits = joint.logits(joint.encoder(frames)[:, None], joint.prediction(predictions)[None])
    assert logits.shape == (5, 3, 65)
    as64 = lambda param: np.asarray(param[...], np.float64)
    affine = lambda layer, x: np.asarray(x, np.float64) @ as64(layer.kernel) + as64(layer.bias)
    for t in range(5):
        for u in range(3):
            hidden = np.maximum(affine(joint.encoder, frames[t]) + affine(joint.prediction, predictions[u]), 0)
            np.testing.assert_allclose(logits[t, u], affine(joint.output, hidden), atol=1e-4)
