import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nemojax.model.prediction import LSTMLayer


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
    state, outputs = model.prediction.initial_cache(2), []
    for label in np.array(labels).T:
        output, state = model.prediction.step(jnp.asarray(label), state)
        outputs.append(output)
    for row in range(2):
        np.testing.assert_allclose(np.array(outputs)[:, row], textbook(model.prediction, labels[row]), atol=1e-6)


def test_initial_values_are_torchs():
    layer = LSTMLayer(24, rngs=nnx.Rngs(0))
    for kernel in (layer.input_kernel, layer.hidden_kernel):
        values = np.asarray(kernel[...]) * 24**0.5
        assert -1 <= values.min() < -0.99 and 0.99 < values.max() <= 1 and abs(values.mean()) < 0.05
    np.testing.assert_array_equal(layer.input_bias[...], np.repeat([0, 1, 0, 0], 24))
    assert not layer.hidden_bias[...].any()


def test_blank_is_a_zero_vector(tiny_model):
    assert not tiny_model.prediction.embedding[...][tiny_model.config.blank].any()


def test_rows_are_independent(tiny_model):
    state = jax.tree.map(lambda x: x + 0.3, tiny_model.prediction.initial_cache(3))
    garbage = jax.tree.map(lambda x: x.at[1].set(jnp.nan), state)
    label = jnp.array([4, 5, 6])
    clean, dirty = tiny_model.prediction.step(label, state)[0], tiny_model.prediction.step(label, garbage)[0]
    np.testing.assert_array_equal(clean[::2], dirty[::2])


@pytest.mark.parametrize("name", ["tiny", "family"])
def test_a_sequence_is_its_steps(name, tiny_model, family_model):
    model = {"tiny": tiny_model, "family": family_model}[name]
    labels = jnp.array([[3, 3, 0, 63], [5, 9, 21, 1]])
    state, outputs = model.prediction.initial_cache(2), []
    for label in (jnp.full(2, model.config.blank), *labels.T):
        output, state = model.prediction.step(label, state)
        outputs.append(output)
    np.testing.assert_allclose(model.prediction.sequence(labels), jnp.stack(outputs, axis=1), atol=1e-6)
    assert model.prediction.sequence(labels[:, :0]).shape == (2, 1, model.config.prediction.width)


def test_labels_past_the_end_change_nothing_before_it(tiny_model):
    labels = jnp.array([[3, 7, 0, 0], [3, 7, 64, 1]])
    first, second = tiny_model.prediction.sequence(labels)
    np.testing.assert_array_equal(first[:3], second[:3])


def test_no_gradient_moves_blank(tiny_model):
    """A hypothesis starts with a vector that is zero, and stays zero in training."""
    loss = lambda network: network.sequence(jnp.array([[3, 7]])).sum()
    gradient = jax.grad(loss)(tiny_model.prediction).embedding[...]
    assert not gradient[tiny_model.config.blank].any() and gradient[3].any() and gradient[7].any()


def test_dropout_is_between_the_layers_and_after_the_last_not_in_the_recurrence(tiny_model):
    network, config = tiny_model.prediction, tiny_model.config
    zeros, label = network.initial_cache(512), jnp.full(512, 5)
    _, state = network.step(label, zeros)
    dropped, noisy_state = network.step(label, zeros, jax.random.key(0))
    np.testing.assert_array_equal(state.hidden[0], noisy_state.hidden[0])
    rate, zero = config.prediction.dropout, np.asarray(dropped) == 0
    assert abs(zero.mean() - rate) < 0.02
    scaled = np.asarray(noisy_state.hidden[1]) / (1 - rate)
    np.testing.assert_allclose(np.asarray(dropped)[~zero], scaled[~zero], rtol=1e-6)
    assert not np.allclose(state.hidden[1], noisy_state.hidden[1])  # its input was dropped


def test_every_step_of_a_sequence_drops_its_own(tiny_model):
    labels = jnp.full((64, 5), 5)
    zero = np.asarray(tiny_model.prediction.sequence(labels, jax.random.key(0))) == 0
    assert abs(zero.mean() - tiny_model.config.prediction.dropout) < 0.02
    assert not any((zero[:, i] == zero[:, j]).all() for i in range(6) for j in range(i))
