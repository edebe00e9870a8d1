"""The labels, times and text of one stream whose search is a beam: what is settled, and what may still change."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nemojax.config import ModelConfig
from nemojax.recognition.hypothesis import NOTHING, Hypothesis, Update
from nemojax.recognition.label_tree import LabelTree, Ranked
from nemojax.text.tokenizer import Tokenizer
from nemojax.text.transcript import Alternative, Transcript


class BeamHypothesis(Hypothesis):
    """The hypotheses of one stream's beam, and their text.

    What all of them share is final, and is what `Hypothesis` keeps. The rest of the best one is the `tentative` text of
    an update; it is final once the stream ends.

    Args:
      score_norm, n_best: those of `Beam`.
      keep: as for `Hypothesis`; without it, a transcript lists no hypotheses.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer, score_norm: bool, n_best: int, keep: bool = True):
        super().__init__(config, tokenizer, keep)
        self._tree, self._count = LabelTree(score_norm), n_best
        self._n_best: tuple[Alternative, ...] | None = None  # once the text has ended

    def extend(self, emission: Any, row: int) -> Update:
        """Takes one row of a `BeamEmission` of numpy arrays; the update has what is settled, and the tentative text."""
        settled = self._tree.extend(emission, row)
        update = self.append(*settled)
        rest = self._tree.ranked(1)[0].rest.tokens
        return update._replace(tentative=self._detokenizer.preview(rest)) if rest else update

    def finish(self) -> Update:
        """Ends the text with the best hypothesis."""
        if self._n_best is not None:
            return NOTHING
        ranked = self._tree.ranked(self._count) if self.is_whole else []
        self._n_best = tuple(map(self._alternative, ranked))
        return self.append(*self._tree.collapse()) + super().finish()

    def _alternative(self, ranked: Ranked) -> Alternative:
        tokens, frames = (*self.tokens, *ranked.rest.tokens), (*self.frames, *ranked.rest.frames)
        log_probs = *self.log_probs, *ranked.rest.log_probs
        return Alternative(self._tokenizer.decode(tokens), tokens, frames, log_probs, ranked.score)

    def transcript(self, samples: int, lookahead: int, mode: str, notes: Sequence[str] = ()) -> Transcript:
        """Returns the transcript of a stream of `samples` samples, whose text ends; see `Hypothesis.transcript`."""
        transcript = super().transcript(samples, lookahead, mode, notes)
        return replace(transcript, n_best=self._n_best or ())
