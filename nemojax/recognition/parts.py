"""What a recognizer consists of: its model, tokenizer, search and graphs; and recognizers with others."""

import copy
import dataclasses
import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from nemojax.checks import check_count, check_weight
from nemojax.config import ModelConfig
from nemojax.decoding.beam import Beam
from nemojax.decoding.confidence import Confidence, as_confidence
from nemojax.decoding.graph_pool import PlacedGraph
from nemojax.decoding.greedy import Greedy
from nemojax.decoding.state import Search
from nemojax.device import check_process
from nemojax.errors import ConfigError
from nemojax.kernels.fixed_order import is_fixed
from nemojax.kernels.quantization import weights_dtype
from nemojax.model.parameters import abstract_model, freeze, named_parameters, parameter_count, thaw, with_config
from nemojax.model.transducer import Transducer
from nemojax.recognition.beam_hypothesis import BeamHypothesis
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.recognition.hypothesis import Hypothesis
from nemojax.recognition.stream_batch import StreamBatch, fusing
from nemojax.recognition.stream_graphs import DEFAULT_LM_WEIGHT, NO_GRAPHS, GraphLibrary, StreamGraphs
from nemojax.streaming import GREEDY, prepare
from nemojax.text.phrases import Phrases
from nemojax.text.tokenizer import Tokenizer


class RecognizerParts:
    """The model, tokenizer, search and graphs of a recognizer. Immutable: a recognizer with others is a new one.

    Args:
      tokenizer: `config.text` decides how it turns labels into text.
      search: the search over labels that streams and transcriptions use.
      compiler_options: XLA's options for the step; None is those of `selection.step_options`.
    """

    def __init__(
        self,
        model: Transducer,
        config: ModelConfig,
        tokenizer: Tokenizer,
        origin: dict[str, Any] | None = None,
        search: Search = GREEDY,
        compiler_options: Mapping[str, Any] | None = None,
    ):
        check_process()
        if tokenizer.size != config.vocabulary:
            raise ValueError(f"the tokenizer has {tokenizer.size} pieces, the model {config.vocabulary}")
        same = tokenizer.settings == config.text
        self.tokenizer = tokenizer if same else Tokenizer(tokenizer.model, config.text)
        self.config, self.origin = config, origin or {}
        self.search, self.compiler_options = search, compiler_options
        self.library, self.graphs = GraphLibrary(self.tokenizer), NO_GRAPHS
        self.model = freeze(model)
        self.constants = prepare(self.model)

    @cached_property
    def parameters(self) -> int:
        """The number of weights; what fills up kernels that are packed, and the scales of int8, do not count."""
        return parameter_count(abstract_model(self.config))

    @property
    def dtype(self) -> str:
        """The type of the encoder's weights; see `load`."""
        return str(weights_dtype(self.model))

    @property
    def reproducible(self) -> bool:
        """Whether results are the same bits whatever the batch, the segment and the cut; see `load`."""
        return is_fixed(thaw(self.model))

    @property
    def fingerprint(self) -> str:
        """A digest of all vectors of weights, biases and norms, which tells models of the same sizes apart."""
        named = sorted(named_parameters(thaw(self.model)).items())
        vectors = jax.device_get([array for _, array in named if array.ndim == 1])
        return hashlib.sha256(b"".join(np.asarray(vector).tobytes() for vector in vectors)).hexdigest()[:16]

    def with_config(self, config: ModelConfig) -> Self:
        """Returns a recognizer of the same weights under other settings, such as another left context.

        Raises:
          ConfigError: the settings need weights of other shapes.
        """
        model = with_config(thaw(self.model), config)
        recognizer = type(self)(model, config, self.tokenizer, self.origin, self.search, self.compiler_options)
        recognizer.library, recognizer.graphs = self.library, self.graphs
        return recognizer

    def with_language_model(self, path: str | Path, weight: float = DEFAULT_LM_WEIGHT) -> Self:
        """Returns a recognizer of the same weights with an n-gram language model over the tokenizer's pieces.

        Its scores, times the weight, are added to those of labels. Weights of 0.1 to 0.4 are usual; find the best one
        on recordings of your domain, and compare with a weight of 0, which is to have no language model.

        Args:
          path: an ARPA file, as `nemojax lm` and other tools write it; a `.nemo` archive of a language model; or a
            binary file of KenLM, which needs the kenlm package.

        Raises:
          LanguageModelError: it can't be read, or is not over these pieces; says why.
          ConfigError: the weight is not a number from 0 to 100, or the search takes no language model.
        """
        check_weight("the weight of the language model", weight)
        fusing(self.search)
        recognizer = copy.copy(self)
        graphs = dataclasses.replace(self.graphs, language_model=self.library.language_model(path))
        recognizer.graphs = dataclasses.replace(graphs, lm_weight=float(weight))
        return recognizer

    def with_phrases(self, phrases: Phrases | PlacedGraph | None) -> Self:
        """Returns a recognizer of the same weights that expects phrases, where a request has none; see `stream`."""
        fusing(self.search)
        recognizer = copy.copy(self)
        recognizer.graphs = self.library.graphs(self.graphs, phrases or (), None)
        return recognizer

    def phrases(self, phrases: Phrases) -> PlacedGraph | None:
        """Prepares a long list of phrases, which may be given to many streams; see `stream`."""
        return self.library.phrases(phrases)

    def requested_graphs(
        self,
        phrases: Phrases | PlacedGraph | None,
        lm_weight: float | None,
        graphs: StreamGraphs | None = None,
    ) -> StreamGraphs:
        """Returns the graphs of a request: this recognizer's, or `graphs`, with other phrases or another weight.

        Raises:
          ConfigError: a phrase does not fit, or the search takes none.
        """
        requested = self.library.graphs(self.graphs if graphs is None else graphs, phrases, lm_weight)
        if requested.placed:
            fusing(self.search)
        return requested

    def lookahead(self, lookahead: int | None) -> int:
        """Returns the look-ahead, or the default one for None. Raises ConfigError if it does not fit the model."""
        lookahead = self.config.encoder.lookaheads[0] if lookahead is None else lookahead
        if type(lookahead) is not int:
            check_count("lookahead", lookahead, 0)
        self.config.chunk_frames(lookahead)
        return lookahead

    def with_search(self, search: Search) -> Self:
        """Returns a recognizer of the same weights with another search, such as `Beam(width=4)`.

        Raises:
          ConfigError: it is not a search.
        """
        check_search(search)
        recognizer = copy.copy(self)
        recognizer.search = search
        return recognizer

    def with_reset(self, reset_prediction_after_s: float | None) -> Self:
        """Returns a recognizer of the same weights whose prediction network begins anew after a pause; see `Greedy`.

        Raises:
          ConfigError: the seconds are not a positive number, or the recognizer's search is not `Greedy`.
        """
        if not isinstance(self.search, Greedy):
            raise ConfigError(f"reset_prediction_after_s is an option of Greedy, not of {type(self.search).__name__}")
        recognizer = copy.copy(self)
        recognizer.search = dataclasses.replace(self.search, reset_prediction_after_s=reset_prediction_after_s)
        return recognizer

    def with_confidence(self, confidence: Confidence | str | None) -> Self:
        """Returns a recognizer of the same weights whose labels have confidences by another measure; see `load`.

        Raises:
          ConfigError: there is no such measure, or the recognizer's search has no `confidence`.
        """
        search: Any = self.search
        if not hasattr(search, "confidence"):
            raise ConfigError(f"confidence is an option of Greedy and Beam, not of {type(search).__name__}")
        recognizer = copy.copy(self)
        recognizer.search = dataclasses.replace(search, confidence=as_confidence(confidence))
        return recognizer

    def batch(self, size: int, lookahead: int | None = None) -> StreamBatch:
        """Returns `size` new streams that advance together, at the level of samples and labels."""
        settings = self.search, self.compiler_options, self.library.pool
        batch = StreamBatch(self.model, self.constants, self.lookahead(lookahead), size, *settings)
        if self.graphs.placed:
            batch.fuse()
        return batch

    def hypothesis(self, keep: bool = True, end_of_utterance: EndOfUtterance | None = None) -> Hypothesis:
        """Returns the empty hypothesis of a new stream; see `Hypothesis` for `keep`."""
        confidence = getattr(self.search, "confidence", None)
        if isinstance(self.search, Beam):
            settings = self.search.score_norm, self.search.n_best
            return BeamHypothesis(self.config, self.tokenizer, *settings, keep, confidence, end_of_utterance)
        return Hypothesis(self.config, self.tokenizer, keep, confidence, end_of_utterance)


def check_search(search: Any) -> None:
    """Raises ConfigError for what is not a search."""
    if isinstance(search, type) or not isinstance(search, Search):
        raise ConfigError(f"search must be a search, such as Greedy() or Beam(width=4), not {search!r}")
