"""The arithmetic of a training step, and which share of a device's peak it is (model FLOPs utilization, MFU).

Counted are the products that the model needs for valid frames and labels: padding, and activations that are computed
again in the backward pass, are no use. A backward pass costs as much as a forward pass for the gradient of the
activations, and once more for the gradient of the weights, where they are trained.
"""

from collections.abc import Collection

from nemojax.config import ModelConfig
from nemojax.model.subsampling import bins_per_stage
from nemojax.training.lora import is_adapter

# Operations a second of products in bfloat16, dense, by the data sheets. The longest name within a device's name counts
PEAKS = {
    "A100": 312e12,
    "A10G": 70e12,
    "L4": 121e12,
    "L40S": 362e12,
    "H100": 989e12,
    "H100 PCIe": 756e12,
    "H200": 989e12,
    "B200": 2250e12,
    "RTX 4090": 165e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


def peak(device_kind: str, dtype: str) -> float | None:
    """Returns the peak of a device in operations a second; None where it is not known."""
    names = [name for name in PEAKS if name in device_kind] if dtype == "bfloat16" else []
    return PEAKS[max(names, key=len)] if names else None


def encoder_frame(config: ModelConfig) -> int:
    """Returns the operations of the forward pass for an encoder frame, up to the joint network."""
    encoder, channels = config.encoder, config.encoder.subsampling_channels
    width = encoder.width
    products = 4 * width * width  # query, key, value, output
    products += 4 * width * encoder.feedforward_width  # two layers, twice
    products += 3 * width * width + encoder.convolution_kernel * width  # pointwise, depthwise
    context = encoder.left_context_frames + encoder.largest_chunk_frames
    products += 3 * context * width  # scores by content and by position, and the weighted sum
    # three convolutions of stride 2 over time and mel bins; after each there are 4, 2 and 1 frames
    sizes = [frames * bins for frames, bins in zip((4, 2, 1), bins_per_stage(config)[1:], strict=True)]
    subsampling = 9 * channels * sum(sizes) + channels * channels * sum(sizes[1:])
    subsampling += sizes[2] * channels * width
    return 2 * (encoder.layers * products + subsampling)


def step_operations(
    config: ModelConfig, frames: float, labels: float, rows: float, trained: Collection[str] | None = None
) -> float:
    """Returns the operations of a step over all rows.

    Args:
      frames, labels, rows: of the batch, without padding.
      trained: the paths of the parameters that are trained; None for all.
    """
    prediction, joint, steps = config.prediction, config.joint, labels + rows
    factor = _factor(trained, "encoder.")
    operations = factor * frames * encoder_frame(config)
    lstm = prediction.layers * 8 * prediction.width * prediction.width
    operations += _factor(trained, "prediction.") * 2 * steps * lstm
    lattice = frames * steps / max(rows, 1)
    projections = frames * config.encoder.width + steps * prediction.width
    outputs = 2 * joint.width * (projections + lattice * (config.vocabulary + 1))
    return operations + (_factor(trained, "joint.") if trained is not None else 3) * outputs


def _factor(trained: Collection[str] | None, part: str) -> int:
    """Returns how many times the operations of a part's forward pass a step needs: 1, 2 or 3."""
    if trained is None:
        return 3
    here = [name for name in trained if name.startswith(part)]
    if not here:
        # the gradient passes through the joint network to whatever is trained before it
        return 2 if part == "joint." and trained else 1
    return 2 if all(map(is_adapter, here)) else 3
