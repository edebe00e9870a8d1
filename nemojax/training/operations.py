"""The arithmetic of a training step, counted from the settings of the model, and what devices can do at most."""

import math
from functools import lru_cache

from nemojax.config import ModelConfig
from nemojax.model.parameters import abstract_model, named_parameters

FORWARD_AND_BACKWARD = 3  # the backward pass computes two products for each one of the forward pass
# dense products of bfloat16 a second, as the vendors publish them, by a part of the name that jax gives to a device
PEAK_OPERATIONS = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


def peak_operations(device_kind: str) -> float | None:
    """Returns the multiplications and additions of bfloat16 that a device can do in a second; None if not known."""
    return next((peak for name, peak in PEAK_OPERATIONS.items() if name in device_kind), None)


def step_operations(config: ModelConfig, rows: int, frames: int, labels: int) -> float:
    """Returns the multiplications and additions of a training step, both counted, without recomputation.

    Only products count, over valid frames and labels: padding is no useful work.

    Args:
      rows, frames, labels: utterances of a batch, their encoder frames and their labels, in all.
    """
    if not rows:
        return 0.0
    sizes, encoder, width = _kernels(config), config.encoder, config.encoder.width
    block_names = [name for name in sizes if name.startswith("encoder.blocks.") and ".position." not in name]
    blocks = sum(sizes[name] for name in block_names)
    # scores of keys and of positions, and the sum of values, over the left context and half of a chunk on average
    seen = min(frames / rows, encoder.left_context_frames + encoder.largest_chunk_frames / 2)
    attention = encoder.layers * 3 * seen * width
    prediction = sum(size for name, size in sizes.items() if name.startswith("prediction."))
    points = frames * (labels / rows + 1)  # of the lattice
    products = frames * (blocks + attention + _subsampling(config) + sizes["joint.encoder.kernel"])
    products += (labels + rows) * (prediction + sizes["joint.prediction.kernel"])
    products += points * sizes["joint.output.kernel"]
    return float(2 * FORWARD_AND_BACKWARD * products)


@lru_cache
def _kernels(config: ModelConfig) -> dict[str, int]:
    """Returns the sizes of the kernels of products and convolutions, by their paths."""
    return {
        name: math.prod(leaf.shape)
        for name, leaf in named_parameters(abstract_model(config)).items()
        if "kernel" in name
    }


def _subsampling(config: ModelConfig) -> int:
    """Returns the products of the subsampling for an encoder frame: three stages, each of half the frames and bins."""
    channels, kernel, bins = config.encoder.subsampling_channels, 9, config.features.mel_bins
    positions = [4 * math.ceil(bins / 2), 2 * math.ceil(bins / 4), math.ceil(bins / 8)]
    stages = [kernel * channels, *[kernel * channels + channels**2] * 2]
    convolutions = sum(count * stage for count, stage in zip(positions, stages, strict=True))
    return convolutions + positions[-1] * channels * config.encoder.width
