"""The values at every seam of a reference model, in one form for NeMo and transformers.

A trace maps the name of a seam to its values for one recording, frames first:

    log_mel [F, M]    subsampling, scaled, encoder [T, D]
    block0.attention, block0.convolution, block0 [T, D]: the two modules' outputs, and the block's

Caches are those after a chunk: subsampling0..2 [bins, channels], the last input frame of each stage;
block0.keys, block0.values [C, H, K]; block0.convolution [kernel - 1, D]; oldest frame first, valid ones only.

These runs are references: NeMo's and transformers' offline output for a recording alone, at every frame; transformers'
stream at every whole chunk, at any look-ahead; NeMo's stream at every whole chunk, at a look-ahead of 1 or more (at
look-ahead 0 it adds log-mel frames of zeros before the second chunk).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from experiments.references import MAX_SYMBOLS_PER_FRAME

Trace = dict[str, np.ndarray]


class Chunk(NamedTuple):
    """One step of a stream."""

    trace: Trace
    caches: Trace


class Decoding(NamedTuple):
    """Greedy decoding of one recording, with its intermediate values."""

    tokens: np.ndarray  # [U]
    frames: np.ndarray  # [U], encoder frame of each token
    projected: np.ndarray  # [T, J], encoder frames projected by the joint network
    outputs: np.ndarray  # [U + 1, P], of the prediction network, after no label, one label, ...
    hidden: np.ndarray  # [U + 1, layers, P]
    cell: np.ndarray  # [U + 1, layers, P]
    predictions: np.ndarray  # [U + 1, J], the outputs projected by the joint network
    looked: np.ndarray  # [E, 2], (frame, labels so far) of each evaluation of the joint network
    logits: np.ndarray  # [E, V]


def array(tensor: Any) -> np.ndarray:
    copied: np.ndarray = tensor.detach().cpu().numpy().copy()
    return copied


def first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def watching(modules: Mapping[str, Any], inputs: Mapping[str, Any]) -> Iterator[Trace]:
    """Records the first output of `modules`, and the first input of `inputs`, of batches of one."""
    seen: Trace = {}

    def keep(name: str, tensor: Any) -> None:
        seen[name] = array(tensor[0])

    handles = [
        module.register_forward_hook(
            lambda _, args, kwargs, output, name=name: keep(name, first(output)), with_kwargs=True
        )
        for name, module in modules.items()
    ]
    handles += [
        module.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: keep(name, args[0] if args else kwargs["x"]), with_kwargs=True
        )
        for name, module in inputs.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def seams(subsampling: Any, layers: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the modules whose outputs, and those whose inputs, are recorded; the libraries name them alike."""
    modules = {"subsampling": subsampling}
    for i, layer in enumerate(layers):
        modules |= {f"block{i}.attention": layer.self_attn, f"block{i}.convolution": layer.conv, f"block{i}": layer}
    return modules, {"scaled": layers[0]}


def chunk_bounds(log_mel_frames: int, lookahead: int) -> list[tuple[int, int]]:
    """Returns the log-mel frames of each whole chunk: the first ends with frame 8 R, each other 8 (R + 1) later."""
    ends = range(8 * lookahead + 1, log_mel_frames + 1, 8 * (lookahead + 1))
    return list(zip([0, *ends], ends, strict=False))


def double_loop(
    encoded: np.ndarray,
    blank: int,
    project_frame: Callable[[Any], Any],
    project_prediction: Callable[[Any], Any],
    logits: Callable[[Any], Any],
    predict: Callable[[int, Any], tuple[Any, Any]],
) -> Decoding:
    """Decodes greedily: frame by frame, labels until blank or MAX_SYMBOLS_PER_FRAME of them."""
    import torch

    with torch.no_grad():
        projected = project_frame(torch.from_numpy(encoded))
        output, state = predict(blank, None)
        outputs, states, predictions = [output], [state], [project_prediction(output)]
        tokens: list[int] = []
        frames: list[int] = []
        looked: list[tuple[int, int]] = []
        scores = []
        for frame in range(len(encoded)):
            for _ in range(MAX_SYMBOLS_PER_FRAME):
                looked.append((frame, len(tokens)))
                scores.append(logits(projected[frame] + predictions[-1]))
                label = int(scores[-1].argmax())
                if label == blank:
                    break
                tokens.append(label)
                frames.append(frame)
                output, state = predict(label, state)
                outputs.append(output)
                states.append(state)
                predictions.append(project_prediction(output))
        labels = logits(predictions[0].clone()).shape[-1]  # NeMo's ReLU works in place
        return Decoding(
            np.array(tokens, np.int32),
            np.array(frames, np.int32),
            array(projected),
            array(torch.stack(outputs)),
            array(torch.stack([hidden[:, 0] for hidden, _ in states])),
            array(torch.stack([cell[:, 0] for _, cell in states])),
            array(torch.stack(predictions)),
            np.array(looked, np.int32).reshape(-1, 2),
            array(torch.stack(scores)) if scores else np.zeros((0, labels), np.float32),
        )
