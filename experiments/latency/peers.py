"""transformers and NeMo as contenders, each in its fastest setup on a CPU."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.latency.contender import GreedySearch, Step, in_batches, timed_steps
from experiments.references.traces import chunk_bounds


def torch_search(project: Any, predict: Any, logits: Any, blank: int) -> GreedySearch:
    """Makes a greedy search on torch layers; `predict` takes a [1, 1] label."""
    import torch

    def predict_label(label: int, state: Any) -> tuple[Any, Any]:
        output, state = predict(torch.tensor([[label]]), state)
        return output, state

    return GreedySearch(
        blank, project, predict_label, lambda frame, prediction: int(logits(frame + prediction).argmax())
    )


class Transformers:
    """transformers' model, from the directory `huggingface`."""

    def __init__(self, directory: Path, dtype: str, threads: int):
        import torch
        from transformers import AutoModelForRNNT, AutoProcessor

        torch.set_num_threads(threads)
        self._torch, self._dtype = torch, getattr(torch, dtype)
        self._model = AutoModelForRNNT.from_pretrained(
            directory / "huggingface", dtype=self._dtype, attn_implementation="sdpa"
        ).eval()
        self._features = AutoProcessor.from_pretrained(directory / "huggingface").feature_extractor

    def _log_mel(self, recordings: Sequence[np.ndarray]) -> tuple[Any, Any]:
        features = self._features(
            list(recordings), sampling_rate=16_000, return_tensors="pt", return_attention_mask=True
        )
        return features["input_features"].to(self._dtype), features["attention_mask"]

    def _search(self) -> GreedySearch:
        model = self._model

        def predict(label: Any, state: Any) -> tuple[Any, Any]:
            output, state = model.decoder.lstm(model.decoder.embedding(label), state)
            return model.decoder.decoder_projector(output[0, 0]), state

        head = lambda x: model.joint.head(model.joint.activation(x))
        return torch_search(model.encoder_projector, predict, head, model.config.blank_token_id)

    def stream(self, samples: np.ndarray, lookahead: int, parts: bool = True) -> Iterator[Step]:
        with self._torch.inference_mode():
            log_mel, mask = self._log_mel([samples])
            log_mel, caches = log_mel[:, : int(mask.sum())], {"past_key_values": None, "padding_cache": None}

            def encode(chunk: Any) -> Any:
                output = self._model.encoder(chunk, **caches, use_cache=True, num_lookahead_tokens=lookahead)
                caches.update(past_key_values=output.past_key_values, padding_cache=output.padding_cache)
                return output.last_hidden_state[0]

            chunks = [log_mel[:, begin:end] for begin, end in chunk_bounds(log_mel.shape[1], lookahead)]
            yield from timed_steps(chunks, encode, self._search())

    def transcribe(self, recordings: Sequence[np.ndarray], lookahead: int, batch_size: int) -> list[tuple[int, ...]]:
        found: dict[int, tuple[int, ...]] = {}
        with self._torch.inference_mode():
            for indices in in_batches(recordings, batch_size):
                log_mel, mask = self._log_mel([recordings[index] for index in indices])
                output = self._model.encoder(log_mel, attention_mask=mask, num_lookahead_tokens=lookahead)
                lengths = output.attention_mask.sum(1)
                for index, encoded, length in zip(indices, output.last_hidden_state, lengths, strict=True):
                    found[index] = self._search()(encoded[: int(length)])
        return [found[index] for index in range(len(recordings))]


class Nemo:
    """NeMo's model, from `model.nemo`."""

    def __init__(self, directory: Path, dtype: str, threads: int):
        import torch
        from nemo.utils import logging

        from experiments.references import nemo_model

        torch.set_num_threads(threads)
        logging.setLevel(logging.ERROR)
        self._torch, self._model = torch, nemo_model.load(directory / "model.nemo").eval()
        self._model.preprocessor.featurizer.dither = 0.0

    def _log_mel(self, recordings: Sequence[np.ndarray]) -> tuple[Any, Any]:
        padded = self._torch.nn.utils.rnn.pad_sequence([self._torch.from_numpy(x) for x in recordings], True)
        lengths = self._torch.tensor([len(samples) for samples in recordings])
        log_mel, frames = self._model.preprocessor(input_signal=padded, length=lengths)
        return log_mel, frames

    def _look_ahead(self, lookahead: int) -> None:
        encoder = self._model.encoder
        encoder.set_default_att_context_size([encoder.att_context_size_all[0][0], lookahead])
        encoder.setup_streaming_params()

    def _search(self) -> GreedySearch:
        decoder, joint = self._model.decoder, self._model.joint

        def predict(label: Any, state: Any) -> tuple[Any, Any]:
            output, state = decoder.predict(label, state, add_sos=False, batch_size=1)
            return joint.pred(output[0, 0]), tuple(state)

        return torch_search(joint.enc, predict, joint.joint_net, decoder.vocab_size)

    def stream(self, samples: np.ndarray, lookahead: int, parts: bool = True) -> Iterator[Step]:
        self._look_ahead(lookahead)
        encoder = self._model.encoder
        settings, caches = encoder.streaming_cfg, encoder.get_initial_cache_state(batch_size=1)

        def encode(chunk: tuple[Any, bool]) -> Any:
            nonlocal caches
            signal, first = chunk
            encoded, _, *after = encoder.cache_aware_stream_step(
                processed_signal=signal,
                processed_signal_length=self._torch.tensor([signal.shape[2]]),
                cache_last_channel=caches[0],
                cache_last_time=caches[1],
                cache_last_channel_len=caches[2],
                keep_all_outputs=False,
                drop_extra_pre_encoded=0 if first else settings.drop_extra_pre_encoded,
            )
            caches = after
            return encoded[0].T

        with self._torch.inference_mode():
            log_mel, length = self._log_mel([samples])
            before = settings.pre_encode_cache_size[1]
            # every chunk but the first comes with frames before it; NeMo fills up missing ones with zeros, as here
            padded = self._torch.nn.functional.pad(log_mel, (before, 0))
            chunks = [
                (padded[:, :, begin + before if begin == 0 else begin : end + before], begin == 0)
                for begin, end in chunk_bounds(int(length[0]), lookahead)
            ]
            yield from timed_steps(chunks, encode, self._search())

    def transcribe(self, recordings: Sequence[np.ndarray], lookahead: int, batch_size: int) -> list[tuple[int, ...]]:
        self._look_ahead(lookahead)
        found: dict[int, tuple[int, ...]] = {}
        with self._torch.inference_mode():
            for indices in in_batches(recordings, batch_size):
                log_mel, length = self._log_mel([recordings[index] for index in indices])
                encoded, frames = self._model.encoder(audio_signal=log_mel, length=length)
                # for a batch NeMo's own search is the faster one
                hypotheses = self._model.decoding.rnnt_decoder_predictions_tensor(
                    encoder_output=encoded, encoded_lengths=frames, return_hypotheses=True
                )
                for index, hypothesis in zip(indices, hypotheses, strict=True):
                    found[index] = tuple(np.asarray(hypothesis.y_sequence).tolist())
        return [found[index] for index in range(len(recordings))]
