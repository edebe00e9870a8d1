"""The prediction network: labels so far to one vector, through an embedding and an LSTM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from nemojax.config import ModelConfig
from nemojax.model.layers import broadcast_vector, dropout, einsum, initialize, split_key


class LSTMState(NamedTuple):
    """Hidden and cell state of every layer, in float32; zeros before the first label."""

    hidden: tuple[Float[Array, "B P"], ...]
    cell: tuple[Float[Array, "B P"], ...]


class LSTMLayer(nnx.Module):
    """One layer of an LSTM, with gates in the order input, forget, cell, output, and two bias vectors."""

    def __init__(self, width: int, *, rngs: nnx.Rngs | None):
        uniform = nnx.initializers.uniform(2 * width**-0.5)
        centered = lambda shape: initialize(uniform, rngs, shape) - width**-0.5
        self.input_kernel = nnx.Param(centered((width, 4 * width)))
        self.hidden_kernel = nnx.Param(centered((width, 4 * width)))
        initial_bias = jnp.zeros(4 * width, jnp.float32)
        self.input_bias = nnx.Param(initial_bias.at[width : 2 * width].set(1.0))  # the forget gate starts open
        self.hidden_bias = nnx.Param(initial_bias)

    def __call__(
        self, x: Float[Array, "B P"], hidden: Float[Array, "B P"], cell: Float[Array, "B P"]
    ) -> tuple[Float[Array, "B P"], Float[Array, "B P"]]:
        gates = self.product(x, self.input_kernel[...]) + self.product(hidden, self.hidden_kernel[...])
        gates = gates + broadcast_vector(self.input_bias[...], 2) + broadcast_vector(self.hidden_bias[...], 2)
        enter, forget, candidate, leave = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
        return jax.nn.sigmoid(leave) * jnp.tanh(cell), cell

    def product(self, x: Float[Array, "B P"], kernel: Array) -> Float[Array, "B G"]:
        """Multiplies rows with a kernel."""
        return einsum("bp,pg->bg", x, kernel)


class PredictionNetwork(nnx.Module):
    """An embedding and an LSTM over the labels emitted so far."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs | None):
        width = config.prediction.width
        embedding = initialize(nnx.initializers.normal(1.0), rngs, (config.labels, width))
        self.embedding = nnx.Param(embedding.at[config.blank].set(0.0))  # blank starts a hypothesis: zero
        self.lstm = nnx.List([LSTMLayer(width, rngs=rngs) for _ in range(config.prediction.layers)])
        self.only_after_labels = True  # a search leaves it out where no stream has a new label
        self.config = config

    def initial_cache(self, batch: int, dtype: DTypeLike = jnp.float32) -> LSTMState:
        """Returns the state before the first label: zeros, float32 whatever `dtype` is, as sums over labels are."""
        layers, shape = self.config.prediction.layers, (batch, self.config.prediction.width)
        zeros = lambda: tuple(jnp.zeros(shape, jnp.float32) for _ in range(layers))
        return LSTMState(zeros(), zeros())

    def step(
        self, label: Int[Array, " B"], state: LSTMState, key: Array | None = None
    ) -> tuple[Float[Array, "B P"], LSTMState]:
        """Computes the output after one more label (blank: at the start), and the state after it."""
        return self._advance(self._embed(label), state, key)

    def sequence(self, labels: Int[Array, "B U"], key: Array | None = None) -> Float[Array, "B S P"]:
        """Computes the outputs before the first of U labels and after each of them, S = U + 1.

        A hypothesis starts with zeros here, not with the blank's embedding: the value is the same, but no gradient
        moves that embedding away from zero. Labels after a row's last one change no output before them.
        """
        embedded = jnp.pad(self._embed(labels), ((0, 0), (1, 0), (0, 0)))
        keys = None if key is None else jax.random.split(key, embedded.shape[1])

        def step(state: LSTMState, inputs: tuple[Array, Array | None]) -> tuple[LSTMState, Array]:
            y, state = self._advance(inputs[0], state, inputs[1])
            return state, y

        _, y = jax.lax.scan(step, self.initial_cache(labels.shape[0]), (jnp.swapaxes(embedded, 0, 1), keys))
        return jnp.swapaxes(y, 0, 1)

    def _embed(self, label: Int[Array, "*batch"]) -> Float[Array, "*batch P"]:
        return self.embedding[...][label].astype(jnp.float32)

    def _advance(
        self, x: Float[Array, "B P"], state: LSTMState, key: Array | None
    ) -> tuple[Float[Array, "B P"], LSTMState]:
        hidden, cell = [], []
        keys = split_key(key, len(self.lstm))
        for layer, h, c, layer_key in zip(self.lstm, state.hidden, state.cell, keys, strict=True):
            x, c = layer(x, h, c)
            hidden.append(x)
            cell.append(c)
            x = dropout(x, self.config.prediction.dropout, layer_key)  # on the output to the next layer, not the state
        return x, LSTMState(tuple(hidden), tuple(cell))
