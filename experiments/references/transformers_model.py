"""transformers' model on the weights of NeMo's, and its values at every seam.

The map of names is independent of the converters' on purpose: the two check each other.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.references import MAX_SYMBOLS_PER_FRAME, Size
from experiments.references.traces import Chunk, Decoding, Trace, array, chunk_bounds, double_loop, seams, watching

# NeMo's names to transformers', in order; see the table of tensor names in each library's sources
RENAMINGS = [
    (r"^encoder\.pre_encode\.conv\.0\.", "encoder.subsampling.conv_in."),
    (r"^encoder\.pre_encode\.conv\.2\.", "encoder.subsampling.layers.0.depthwise_conv."),
    (r"^encoder\.pre_encode\.conv\.3\.", "encoder.subsampling.layers.0.pointwise_conv."),
    (r"^encoder\.pre_encode\.conv\.5\.", "encoder.subsampling.layers.1.depthwise_conv."),
    (r"^encoder\.pre_encode\.conv\.6\.", "encoder.subsampling.layers.1.pointwise_conv."),
    (r"^encoder\.pre_encode\.out\.", "encoder.subsampling.linear."),
    (r"\.conv\.batch_norm\.", ".conv.norm."),
    (r"\.self_attn\.linear_([qkv])\.", r".self_attn.\1_proj."),
    (r"\.self_attn\.linear_out\.", ".self_attn.o_proj."),
    (r"\.self_attn\.linear_pos\.", ".self_attn.relative_k_proj."),
    (r"\.self_attn\.pos_bias_([uv])$", r".self_attn.bias_\1"),
    (r"^decoder\.prediction\.embed\.", "decoder.embedding."),
    (r"^decoder\.prediction\.dec_rnn\.lstm\.", "decoder.lstm."),
    (r"^joint\.enc\.", "encoder_projector."),
    (r"^joint\.pred\.", "decoder.decoder_projector."),
    (r"^joint\.joint_net\.2\.", "joint.head."),
]


def transformers_name(nemo_name: str) -> str:
    for pattern, replacement in RENAMINGS:
        nemo_name = re.sub(pattern, replacement, nemo_name)
    return nemo_name


def build(size: Size, nemo_model: Any) -> Any:
    """Builds a `NemotronAsrStreamingForRNNT` on the weights of a NeMo model, without copying them."""
    import torch
    from transformers import NemotronAsrStreamingConfig, NemotronAsrStreamingForRNNT

    labels = nemo_model.decoder.vocab_size + 1
    config = NemotronAsrStreamingConfig(
        vocab_size=labels,
        blank_token_id=labels - 1,
        pad_token_id=labels - 1,
        decoder_hidden_size=size.prediction_width,
        num_decoder_layers=size.prediction_layers,
        max_symbols_per_step=MAX_SYMBOLS_PER_FRAME,
        encoder_config={
            "num_mel_bins": size.mels,
            "hidden_size": size.width,
            "intermediate_size": size.width * size.feedforward_factor,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "attention_bias": size.use_bias,
            "convolution_bias": size.use_bias,
            "scale_input": size.scale_input,
            "subsampling_conv_channels": size.channels,
            "sliding_window": size.left_context_frames + 1,
            "default_num_lookahead_tokens": size.lookaheads[0],
        },
    )
    weights = {
        transformers_name(name): tensor
        for name, tensor in nemo_model.state_dict().items()
        if not name.startswith("preprocessor.")
    }
    with torch.device("meta"):
        # eager attention gives NaN where every key of a query is masked
        model = NemotronAsrStreamingForRNNT._from_config(config, attn_implementation="sdpa")
    model.load_state_dict(weights, strict=True, assign=True)
    encoding = model.encoder.encode_positions
    encoding.inv_freq = encoding.compute_default_relative_positional_parameters(config.encoder_config)
    model.generation_config.decoder_start_token_id = config.blank_token_id
    return model.eval()


def save(model: Any, size: Size, tokenizer_model: str | Path, directory: str | Path) -> None:
    """Writes a directory for `from_pretrained`: settings, weights, processor and tokenizer."""
    from transformers import NemotronAsrStreamingProcessor
    from transformers.convert_slow_tokenizer import ParakeetConverter
    from transformers.models.parakeet.tokenization_parakeet import ParakeetTokenizer

    blank, padding = "<blank>", "<pad>"
    tokenizer = ParakeetTokenizer(
        tokenizer_object=ParakeetConverter(str(tokenizer_model)).converted(), unk_token="<unk>", pad_token=padding
    )
    tokenizer.add_tokens([blank, padding], special_tokens=True)
    model.save_pretrained(directory)
    NemotronAsrStreamingProcessor(
        features(size), tokenizer, blank_token=blank, supported_num_lookahead_tokens=list(size.lookaheads)
    ).save_pretrained(directory)


def features(size: Size) -> Any:
    from transformers import NemotronAsrStreamingFeatureExtractor

    return NemotronAsrStreamingFeatureExtractor(
        feature_size=size.mels,
        sampling_rate=16_000,
        hop_length=160,
        n_fft=512,
        win_length=400,
        preemphasis=0.97,
    )


class Transformers:
    """transformers' model, one recording at a time."""

    def __init__(self, model: Any, features: Any):
        self.model, self.features = model, features
        self.blank = model.config.blank_token_id
        self._modules, self._inputs = seams(model.encoder.subsampling, model.encoder.layers)

    def _log_mel(self, samples: np.ndarray) -> Any:
        features = self.features(samples, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
        return features["input_features"][:, : int(features["attention_mask"].sum())]

    def offline(self, samples: np.ndarray, lookahead: int) -> Trace:
        """Runs the encoder on one whole recording, alone."""
        import torch

        log_mel = self._log_mel(samples)
        with torch.no_grad(), watching(self._modules, self._inputs) as seen:
            encoded = self.model.encoder(log_mel, num_lookahead_tokens=lookahead).last_hidden_state
        return {**seen, "encoder": array(encoded[0]), "log_mel": array(log_mel[0])}

    def batch(self, recordings: Sequence[np.ndarray], lookahead: int) -> list[np.ndarray]:
        """Runs the encoder on recordings side by side, padded to the longest; returns its output for each."""
        import torch

        features = self.features(
            list(recordings), sampling_rate=16_000, return_tensors="pt", return_attention_mask=True
        )
        with torch.no_grad():
            output = self.model.encoder(**features, num_lookahead_tokens=lookahead)
        lengths = output.attention_mask.sum(1)
        return [array(row[: int(length)]) for row, length in zip(output.last_hidden_state, lengths, strict=True)]

    def stream(self, log_mel: np.ndarray, lookahead: int) -> list[Chunk]:
        """Runs the encoder on the whole chunks of a recording, one at a time."""
        import torch

        chunks, signal, attention, convolution = [], torch.from_numpy(log_mel)[None], None, None
        for begin, end in chunk_bounds(len(log_mel), lookahead):
            with torch.no_grad(), watching(self._modules, self._inputs) as seen:
                output = self.model.encoder(
                    signal[:, begin:end],
                    past_key_values=attention,
                    padding_cache=convolution,
                    use_cache=True,
                    num_lookahead_tokens=lookahead,
                )
            attention, convolution = output.past_key_values, output.padding_cache
            trace = {**seen, "encoder": array(output.last_hidden_state[0])}
            chunks.append(Chunk(trace, self._caches(attention, convolution)))
        return chunks

    def _caches(self, attention: Any, convolution: Any) -> Trace:
        stages = {f"subsampling{i}": convolution.layers[f"subsampling.{i}"].cache for i in range(3)}
        # they include the padding of the bins: two below, one above
        caches = {name: array(cache[0, :, 0, 2:-1].T) for name, cache in stages.items()}
        for i, layer in enumerate(attention.layers):
            caches[f"block{i}.keys"] = array(layer.keys[0].transpose(0, 1))
            caches[f"block{i}.values"] = array(layer.values[0].transpose(0, 1))
            caches[f"block{i}.convolution"] = array(convolution.layers[f"conv.{i}"].cache[0].T)
        return caches

    def generate(self, samples: np.ndarray, lookahead: int, streaming: bool) -> tuple[list[int], list[int]]:
        """Decodes a recording, or a stream of its whole chunks, with transformers' own search: tokens, frames."""
        import torch

        log_mel = self._log_mel(samples)
        bounds = chunk_bounds(log_mel.shape[1], lookahead)
        inputs = (log_mel[:, begin:end] for begin, end in bounds) if streaming else log_mel
        with torch.no_grad():
            output = self.model.generate(inputs, num_lookahead_tokens=lookahead, return_dict_in_generate=True)
        labels, advances = array(output.sequences[0])[1:], array(output.durations[0])[1:]
        frames = np.cumsum(advances) - advances
        spoken = labels != self.blank
        return labels[spoken].tolist(), frames[spoken].tolist()

    def double_loop(self, encoded: np.ndarray) -> Decoding:
        """Decodes greedily on transformers' layers, exactly as greedy decoding is defined."""
        model = self.model

        def predict(label: int, state: Any) -> tuple[Any, Any]:
            import torch

            output, state = model.decoder.lstm(model.decoder.embedding(torch.tensor([[label]])), state)
            return output[0, 0], state

        head = lambda x: model.joint.head(model.joint.activation(x))
        return double_loop(encoded, self.blank, model.encoder_projector, model.decoder.decoder_projector, head, predict)
