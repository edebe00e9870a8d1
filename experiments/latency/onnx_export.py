"""Exports NeMo's model as ONNX graphs: NeMo's export of the encoder, one for each look-ahead, and the decoder's layers.

The encoder's graph takes a window of log-mel frames (`window`, of which `shift` are new) and the caches, as NeMo's
`cache_aware_stream_step` does. The int8 graph is onnxruntime's dynamic quantization of it, per channel. The decoder's
layers are exported apart, so that the prediction network runs once per label. sherpa-onnx takes the same graphs of the
encoder, which therefore carry its metadata too, and NeMo's export of prediction and joint network; its labels are named
by their numbers.
"""

from pathlib import Path
from typing import Any

OPSET = 17


def graph(directory: Path, name: str, lookahead: int | None = None) -> str:
    """Returns the path of a graph; those of the encoder have a look-ahead."""
    return str(directory / ("" if lookahead is None else f"lookahead{lookahead}") / f"{name}.onnx")


def export(model: Any, directory: Path, lookaheads: tuple[int, ...]) -> None:
    """Exports all graphs of an `EncDecRNNTBPEModel`."""
    directory.mkdir(parents=True, exist_ok=True)
    _export_decoder(model, directory)
    _export_for_sherpa(model, directory)
    model.set_export_config({"cache_support": True})
    for lookahead in lookaheads:
        _export_encoder(model, directory, lookahead)


def _export_encoder(model: Any, directory: Path, lookahead: int) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    encoder, path = model.encoder, Path(graph(directory, "encoder", lookahead))
    path.parent.mkdir(exist_ok=True)
    encoder.set_default_att_context_size([encoder.att_context_size_all[0][0], lookahead])
    encoder.setup_streaming_params()
    settings = encoder.streaming_cfg
    shift = 8 * (lookahead + 1)
    window = shift + settings.pre_encode_cache_size[1]
    exported = path.parent / "exported"
    exported.mkdir(exist_ok=True)
    encoder.export(str(exported / "encoder.onnx"), onnx_opset_version=OPSET)
    whole = onnx.load(str(exported / "encoder.onnx"))  # NeMo writes a file for each weight
    channel, time, _ = encoder.get_initial_cache_state(batch_size=1)
    shapes = {"cache_last_channel": channel.transpose(0, 1).shape, "cache_last_time": time.transpose(0, 1).shape}
    properties = {"window": window, "shift": shift, **{name: list(shape) for name, shape in shapes.items()}}
    properties |= _sherpa_metadata(model, window, shift, shapes)
    onnx.helper.set_model_props(whole, {name: str(value) for name, value in properties.items()})
    weights = {"save_as_external_data": True, "all_tensors_to_one_file": True}
    onnx.save_model(whole, str(path), location="encoder.weights", **weights)
    for file in exported.iterdir():
        file.unlink()
    exported.rmdir()
    del whole
    quantize_dynamic(
        str(path),
        graph(directory, "encoder_int8", lookahead),
        per_channel=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
        use_external_data_format=True,
    )


def _sherpa_metadata(model: Any, window: int, shift: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the metadata that sherpa-onnx reads, under the names of its export scripts for NeMo."""
    decoder = model.decoder
    sizes = {f"{name}_dim{i}": shape[i] for name, shape in shapes.items() for i in (1, 2, 3)}
    return sizes | {
        "model_type": "EncDecHybridRNNTCTCBPEModel",
        "version": 1,
        "window_size": window,
        "chunk_shift": shift,
        "subsampling_factor": 8,
        "normalize_type": "",
        "feat_dim": model.encoder._feat_in,
        "vocab_size": decoder.vocab_size,
        "pred_rnn_layers": decoder.pred_rnn_layers,
        "pred_hidden": decoder.pred_hidden,
    }


def _export_for_sherpa(model: Any, directory: Path) -> None:
    model.decoder.export(graph(directory, "decoder"), onnx_opset_version=OPSET)
    model.joint.export(graph(directory, "joiner"), onnx_opset_version=OPSET)
    blank = model.decoder.vocab_size
    lines = [f"{label} {label}" for label in range(blank)] + [f"<blk> {blank}"]
    (directory / "tokens.txt").write_text("\n".join(lines) + "\n")


def _export_decoder(model: Any, directory: Path) -> None:
    import onnx
    import torch

    decoder, joint = model.decoder, model.joint
    lstm = decoder.prediction["dec_rnn"].lstm

    class Predict(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.lstm, self.project = decoder.prediction["embed"], lstm, joint.pred

        def forward(self, label: Any, hidden: Any, cell: Any) -> Any:
            output, (hidden, cell) = self.lstm(self.embedding(label), (hidden, cell))
            return self.project(output), hidden, cell

    class Logits(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = joint.joint_net

        def forward(self, frame: Any, prediction: Any) -> Any:
            return self.network(frame + prediction)

    label, state = torch.zeros((1, 1), dtype=torch.int64), torch.zeros(lstm.num_layers, 1, lstm.hidden_size)
    projected, encoded = torch.zeros(1, 1, joint.joint_hidden), torch.zeros(2, joint.encoder_hidden)
    graphs = {
        "predict": (Predict(), (label, state, state), ["label", "hidden", "cell"], {}),
        "logits": (Logits(), (projected, projected), ["frame", "prediction"], {}),
        "project": (joint.enc, (encoded,), ["encoded"], {"encoded": {0: "frames"}}),
    }
    for name, (module, inputs, names, axes) in graphs.items():
        path = graph(directory, name)
        torch.onnx.export(
            module.eval(), inputs, path, input_names=names, dynamic_axes=axes, opset_version=OPSET, dynamo=False
        )
        sizes = {"blank": decoder.vocab_size, "layers": lstm.num_layers, "width": lstm.hidden_size}
        sizes["mels"] = model.encoder._feat_in
        whole = onnx.load(path)
        onnx.helper.set_model_props(whole, {key: str(value) for key, value in sizes.items()})
        onnx.save_model(whole, path)
