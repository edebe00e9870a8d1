"""Layers by their definitions in numpy, which compiles nothing, and random input for them."""

import numpy as np


def normal(seed: int, *shape: int) -> np.ndarray:
    """Standard normal float32 values."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def linear(layer, x: np.ndarray) -> np.ndarray:
    y = x @ np.asarray(layer.kernel[...])
    return y if layer.bias is None else y + np.asarray(layer.bias[...])


def layer_norm(layer, x: np.ndarray) -> np.ndarray:
    centered = x - x.mean(-1, keepdims=True)
    normed = centered / np.sqrt(np.square(centered).mean(-1, keepdims=True) + 1e-5)
    return normed * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])
