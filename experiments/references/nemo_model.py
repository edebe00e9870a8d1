"""NeMo's model on random weights, and its values at every seam.

The weights are made so that a comparison shows every mistake: each bias, scale and norm differs from its initial value,
attention prefers certain frames, and greedy decoding gives labels at some frames but not at all.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.references import MAX_SYMBOLS_PER_FRAME, Size
from experiments.references.tokenizer import train_tokenizer
from experiments.references.traces import Chunk, Decoding, Trace, array, chunk_bounds, double_loop, seams, watching

LABELS_PER_FRAME = 0.3  # that blank is calibrated to
# with initial weights, attention is almost uniform, and a wrong score would hardly show
ATTENTION_SCALE, POSITION_BIAS_SCALE = 2.5, 5.0
SUBSAMPLED_SCALE = 0.15  # a larger one would magnify the rounding of log-mel
MAX_DRAWS = 100  # of output weights
FRAME_SCALE, LABEL_SCALE = 1.0, 2.0  # the prediction varies more than the frames, or labels would repeat
LOGIT_SCALE = 4.0  # in nats, as in a trained model


def settings(size: Size, tokenizer_directory: str) -> dict[str, Any]:
    """Returns NeMo's configuration of a cache-aware streaming transducer."""
    modules = "nemo.collections.asr.modules"
    return {
        "sample_rate": 16_000,
        "compute_eval_loss": False,
        "log_prediction": False,
        "skip_nan_grad": False,
        "model_defaults": {
            "enc_hidden": size.width,
            "pred_hidden": size.prediction_width,
            "joint_hidden": size.prediction_width,
        },
        "tokenizer": {"dir": tokenizer_directory, "type": "bpe"},
        "preprocessor": {
            "_target_": f"{modules}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16_000,
            "normalize": "NA",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": size.mels,
            "n_fft": 512,
            "frame_splicing": 1,
            "dither": 1e-5,
            "pad_to": 0,
        },
        "spec_augment": {
            "_target_": f"{modules}.SpectrogramAugmentation",
            "freq_masks": 2,
            "time_masks": 10,
            "freq_width": 27,
            "time_width": 0.05,
        },
        "encoder": {
            "_target_": f"{modules}.ConformerEncoder",
            "feat_in": size.mels,
            "feat_out": -1,
            "n_layers": size.layers,
            "d_model": size.width,
            "use_bias": size.use_bias,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": size.channels,
            "causal_downsampling": True,
            "ff_expansion_factor": size.feedforward_factor,
            "self_attention_model": "rel_pos",
            "n_heads": size.heads,
            "att_context_size": [[size.left_context_frames, lookahead] for lookahead in size.lookaheads],
            "att_context_style": "chunked_limited",
            "att_context_probs": None,
            "xscaling": size.scale_input,
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": 9,
            "conv_norm_type": "layer_norm",
            "conv_context_size": "causal",
            "dropout": 0.1,
            "dropout_pre_encoder": 0.1,
            "dropout_emb": 0.0,
            "dropout_att": 0.1,
        },
        "decoder": {
            "_target_": f"{modules}.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {
                "pred_hidden": size.prediction_width,
                "pred_rnn_layers": size.prediction_layers,
                "t_max": None,
                "dropout": 0.2,
            },
        },
        "joint": {
            "_target_": f"{modules}.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": False,
            "fused_batch_size": None,
            "jointnet": {"joint_hidden": size.prediction_width, "activation": "relu", "dropout": 0.2},
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": MAX_SYMBOLS_PER_FRAME}},
        "loss": {"loss_name": "default", "warprnnt_numba_kwargs": {"fastemit_lambda": 5e-3, "clamp": -1.0}},
    }


def build(size: Size, seed: int, tokenizer_directory: str | Path, recordings: Sequence[np.ndarray]) -> Any:
    """Builds an `EncDecRNNTBPEModel` on random weights, with blank calibrated on the recordings."""
    import torch
    from nemo.collections.asr.models import EncDecRNNTBPEModel
    from omegaconf import OmegaConf

    train_tokenizer(tokenizer_directory, size.vocabulary)
    torch.manual_seed(seed)
    model = EncDecRNNTBPEModel(cfg=OmegaConf.create(settings(size, str(tokenizer_directory)))).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name or "norm" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            if re.search(r"linear_(q|k|pos)\.weight$", name):
                parameter.mul_(ATTENTION_SCALE)
            if "pos_bias" in name:
                parameter.mul_(POSITION_BIAS_SCALE)
        calibrate(model, recordings, generator)
    return model


def calibrate(model: Any, recordings: Sequence[np.ndarray], generator: Any) -> None:
    """Scales the joint network of random weights, so that labels depend on frames and previous labels alike.

    The subsampling's output, almost constant with random weights, gets the standard deviation SUBSAMPLED_SCALE about a
    constant part of about 1. These get mean 0 and a standard deviation: each joint unit's input from the encoder over
    the recordings' frames at every look-ahead (FRAME_SCALE), its input from the prediction network over random labels
    (LABEL_SCALE), and each label's logit over random pairs of the two (LOGIT_SCALE). Blank's bias makes about
    LABELS_PER_FRAME labels per encoder frame; output weights are drawn again until this holds at every look-ahead.
    """
    import torch

    lengths = torch.tensor([len(samples) for samples in recordings])
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(samples) for samples in recordings], batch_first=True)
    log_mel, frames = model.preprocessor(input_signal=padded, length=lengths)
    subsampling = model.encoder.pre_encode.out
    standardize(subsampling, subsampled(model, log_mel, frames), SUBSAMPLED_SCALE)
    subsampling.bias.add_(torch.randn(subsampling.bias.shape, generator=generator))
    at_each = []
    for context in model.encoder.att_context_size_all:
        model.encoder.set_default_att_context_size(context)
        at_each.append(model.encoder(audio_signal=log_mel, length=frames))
    encoded, frames = (torch.cat(tensors) for tensors in zip(*at_each, strict=True))
    spoken = torch.cat([row[:, :length].T for row, length in zip(encoded, frames, strict=True)])
    labels = torch.randint(model.decoder.vocab_size, (1, 512), generator=generator)
    predicted = model.decoder.predict(labels, None, add_sos=False, batch_size=1)[0][0]

    standardize(model.joint.enc, spoken, FRAME_SCALE)
    standardize(model.joint.pred, predicted, LABEL_SCALE)
    chosen = torch.randint(len(spoken), (len(predicted),), generator=generator)
    hidden = torch.relu(model.joint.enc(spoken[chosen]) + model.joint.pred(predicted))
    output = model.joint.joint_net[-1]
    for _ in range(MAX_DRAWS):
        output.weight.copy_(torch.randn(output.weight.shape, generator=generator))
        standardize(output, hidden, LOGIT_SCALE)
        output.bias[0] = -10.0 * LOGIT_SCALE  # the unknown piece, which no training text holds
        logits = output(hidden)
        # on random pairs, labels with this probability are LABELS_PER_FRAME a frame
        lead = (logits[:, :-1].amax(1) - logits[:, -1]).quantile(1 / (1 + LABELS_PER_FRAME))
        output.bias[-1].add_(lead)
        hypotheses = model.decoding.rnnt_decoder_predictions_tensor(
            encoder_output=encoded, encoded_lengths=frames, return_hypotheses=True
        )
        emitted = torch.tensor([len(hypothesis.y_sequence) for hypothesis in hypotheses])
        rates = emitted.view(len(at_each), -1).sum(1) / frames.view(len(at_each), -1).sum(1)  # at each look-ahead
        if rates.min() > LABELS_PER_FRAME / 3 and rates.max() < 3 * LABELS_PER_FRAME:
            return
    raise ValueError(f"in {MAX_DRAWS} draws no output weights give labels at every look-ahead; choose another seed")


def standardize(linear: Any, inputs: Any, scale: float) -> None:
    """Gives each output of a linear layer mean 0 and standard deviation `scale` over the inputs."""
    outputs = linear(inputs)
    factor = scale / outputs.std(0)
    linear.weight.mul_(factor[:, None])
    linear.bias.sub_(outputs.mean(0)).mul_(factor)


def subsampled(model: Any, log_mel: Any, frames: Any) -> Any:
    """Returns the input of the subsampling's linear layer for the first recording of a batch."""
    inputs: list[Any] = []
    handle = model.encoder.pre_encode.out.register_forward_pre_hook(lambda _, args: inputs.append(args[0][0]))
    _, length = model.encoder(audio_signal=log_mel, length=frames)
    handle.remove()
    return inputs[0][: int(length[0])]


def load(path: str | Path) -> Any:
    from nemo.collections.asr.models import ASRModel

    return ASRModel.restore_from(str(path), map_location="cpu").eval()


class Nemo:
    """NeMo's model, one recording at a time."""

    def __init__(self, model: Any):
        self._model = model
        self.blank = model.decoder.vocab_size
        self._modules, self._inputs = seams(model.encoder.pre_encode, model.encoder.layers)

    @property
    def model(self) -> Any:
        """In evaluation mode: NeMo's own `transcribe` leaves its modules in training mode, with dropout."""
        return self._model.eval()

    def log_mel(self, samples: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            log_mel, length = self.model.preprocessor(
                input_signal=torch.from_numpy(samples)[None], length=torch.tensor([len(samples)])
            )
        return array(log_mel[0, :, : int(length[0])].T)

    def offline(self, samples: np.ndarray, lookahead: int) -> Trace:
        """Runs the encoder on one whole recording, alone."""
        import torch

        self._look_ahead(lookahead)
        with torch.no_grad(), watching(self._modules, self._inputs) as seen:
            log_mel, length = self.model.preprocessor(
                input_signal=torch.from_numpy(samples)[None], length=torch.tensor([len(samples)])
            )
            encoded, frames = self.model.encoder(audio_signal=log_mel, length=length)
        trace = {name: values[: int(frames[0])] for name, values in seen.items()}
        trace["encoder"] = array(encoded[0, :, : int(frames[0])].T)
        trace["log_mel"] = array(log_mel[0, :, : int(length[0])].T)
        return trace

    def stream(self, log_mel: np.ndarray, lookahead: int) -> list[Chunk]:
        """Runs the encoder on the whole chunks of a recording, one at a time; `lookahead` at least 1."""
        import torch

        self._look_ahead(lookahead)
        encoder = self.model.encoder
        encoder.setup_streaming_params()
        settings = encoder.streaming_cfg
        channel, time, length = encoder.get_initial_cache_state(batch_size=1)
        chunks, signal = [], torch.from_numpy(log_mel.T.copy())[None]
        for begin, end in chunk_bounds(len(log_mel), lookahead):
            start = max(0, begin - settings.pre_encode_cache_size[1]) if begin else 0
            with torch.no_grad(), watching(self._modules, self._inputs) as seen:
                encoded, _, channel, time, length = encoder.cache_aware_stream_step(
                    processed_signal=signal[:, :, start:end],
                    processed_signal_length=torch.tensor([end - start]),
                    cache_last_channel=channel,
                    cache_last_time=time,
                    cache_last_channel_len=length,
                    keep_all_outputs=False,
                    drop_extra_pre_encoded=settings.drop_extra_pre_encoded if begin else 0,
                )
                caches = self._caches(channel, time, int(length[0]))
            seen["subsampling"] = seen["subsampling"][-encoded.shape[2] :]
            chunks.append(Chunk({**seen, "encoder": array(encoded[0].T)}, caches))
        return chunks

    def _caches(self, channel: Any, time: Any, length: int) -> Trace:
        """Returns the caches; NeMo caches the attention's inputs, which are projected to keys and values here."""
        caches = {}
        for i, layer in enumerate(self.model.encoder.layers):
            attention, inputs = layer.self_attn, channel[i, 0, channel.shape[2] - length :]
            heads = (-1, attention.h, attention.d_k)
            caches[f"block{i}.keys"] = array(attention.linear_k(inputs).reshape(heads))
            caches[f"block{i}.values"] = array(attention.linear_v(inputs).reshape(heads))
            caches[f"block{i}.convolution"] = array(time[i, 0].T)
        return caches

    def _look_ahead(self, lookahead: int) -> None:
        left = self.model.encoder.att_context_size_all[0][0]
        self.model.encoder.set_default_att_context_size([left, lookahead])

    def decode(self, encoded: np.ndarray) -> tuple[list[int], list[int], str]:
        """Decodes encoder frames with NeMo's own greedy search; returns tokens, their frames, text."""
        import torch

        frames = torch.from_numpy(encoded.T.copy())[None]
        hypothesis = self.model.decoding.rnnt_decoder_predictions_tensor(
            encoder_output=frames, encoded_lengths=torch.tensor([len(encoded)]), return_hypotheses=True
        )[0]
        return np.asarray(hypothesis.y_sequence).tolist(), np.asarray(hypothesis.timestamp).tolist(), hypothesis.text

    def tidied(self, text: str) -> str:
        """Removes a space before each punctuation mark of a tokenizer's text, as NeMo's decoding does.

        transformers and SentencePiece keep such spaces, and nemojax where `join_punctuation` is false.
        """
        decoding = self.model.decoding
        return str(decoding.space_before_punct_pattern.sub(r"\2", text)) if decoding.supported_punctuation else text

    def decode_stream(self, chunks: list[Chunk]) -> list[int]:
        """Decodes chunk by chunk with NeMo's own greedy search."""
        import torch

        hypotheses = None
        for chunk in chunks:
            encoded = torch.from_numpy(chunk.trace["encoder"].T.copy())[None]
            hypotheses = self.model.decoding.rnnt_decoder_predictions_tensor(
                encoder_output=encoded,
                encoded_lengths=torch.tensor([encoded.shape[2]]),
                return_hypotheses=True,
                partial_hypotheses=hypotheses,
            )
        return np.asarray(hypotheses[0].y_sequence).tolist() if hypotheses else []

    def double_loop(self, encoded: np.ndarray) -> Decoding:
        """Decodes greedily on NeMo's layers, exactly as greedy decoding is defined."""
        decoder, joint = self.model.decoder, self.model.joint

        def predict(label: int, state: Any) -> tuple[Any, Any]:
            import torch

            output, state = decoder.predict(torch.tensor([[label]]), state, add_sos=False, batch_size=1)
            return output[0, 0], tuple(state)

        return double_loop(encoded, self.blank, joint.enc, joint.pred, joint.joint_net, predict)
