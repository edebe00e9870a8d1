import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.prediction import LSTMState


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def textbook(network, labels: list[int]) -> np.ndarray:
    """Outputs after each label of one hypothesis: the LSTM's equations, one gate at a time, in float64."""
    as64 = lambda param: np.asarray(param[...], np.float64)
    layers = len(network.lstm)
    width = network.embedding.shape[1]
    hidden, cell, outputs = np.zeros((layers, width)), np.zeros((layers, width)), []
    for label in labels:
        x = as64(network.embedding)[label]
        for i, layer in enumerate(network.lstm):
            gates = x @ as64(layer.input_kernel) + as64(layer.input_bias)
            gates = gates + hidden[i] @ as64(layer.hidden_kernel) + as64(layer.hidden_bias)
            enter, forget, candidate, leave = (gates[g * width : (g + 1) * width] for g in range(4))
            cell[i] = sigmoid(forget) * cell[i] + sigmoid(enter) * np.tanh(candidate)
            hidden[i] = x = sigmoid(leave) * np.tanh(cell[i])
        outputs.append(x)
    return np.array(outputs)


@pytest.mark.parametrize("name", ["tiny", "family"])
def test_outputs_are_those_of_the_definition(name, tiny_model, family_model):
    model = {"tiny": tiny_model, "family": family_model}[name]
    labels = [[model.config.blank, 3, 3, 0, 63], [model.config.blank, 5, 9, 21, 1]]
    state, outputs = LSTMState.zeros(model.config, 2), []
    for label in np.array(labels).T:
        output, state = model.prediction.step(jnp.asarray(label), state)
        outputs.append(output)
    for row in range(2):
        np.testing.assert_allclose(np.array(outputs)[:, row], textbook(model.prediction, labels[row]), atol=1e-6)


def test_blank_is_a_zero_vector(tiny_model):
    assert not tiny_model.prediction.embedding[...][tiny_model.config.blank].any()


def test_rows_are_independent(tiny_model):
    state = jax.tree.map(lambda x: x + 0.3, LSTMState.zeros(tiny_model.config, 3))
    garbage = jax.tree.map(lambda x: x.at[1].set(jnp.nan), state)
    label = jnp.array([4, 5, 6])
    clean, dirty = tiny_model.prediction.step(label, state)[0], tiny_model.prediction.step(label, garbage)[0]
    np.testing.assert_array_equal(clean[::2], dirty[::2])
