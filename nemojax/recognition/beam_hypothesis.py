"""The labels, times and text of one stream whose search is a beam: what is settled, and what may still change."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nemojax.config import ModelConfig
from nemojax.decoding.confidence import Confidence
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.recognition.hypothesis import NOTHING, Hypothesis, Update
from nemojax.recognition.label_tree import LabelTree, Ranked
from nemojax.text.tokenizer import Tokenizer
from nemojax.text.transcript import Alternative, Transcript


class BeamHypothesis(Hypothesis):
    """The hypotheses of one stream's beam, and their text.

    What all of them share is final, and is what `Hypothesis` keeps. The rest of the best one is the `tentative` text of
    an update; it is final once the stream ends. The ends of utterances are decided from final labels. In a pause,
    labels may not become final; then the end that the best hypothesis has is in `Update.early`, once.

    Args:
      score_norm, n_best: those of `Beam`.
      keep, confidence, end_of_utterance: as for `Hypothesis`; without `keep`, a transcript lists no hypotheses.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        score_norm: bool,
        n_best: int,
        keep: bool = True,
        confidence: Confidence | None = None,
        end_of_utterance: EndOfUtterance | None = None,
    ):
        super().__init__(config, tokenizer, keep, confidence, end_of_utterance)
        self._tree, self._count = LabelTree(score_norm), n_best
        self._n_best: tuple[Alternative, ...] | None = None  # once the text has ended
        self._searched_frames, self._tentative = 0, ""
        self._early_s = 0.0  # when the last end of the best hypothesis was decided, of those in `Update.early`

    def extend(self, emission: Any, row: int, decoded_frames: int = 0) -> Update:
        """Takes one row of a `BeamEmission` of numpy arrays; the update has what is settled, and the tentative text."""
        settled = self._tree.extend(emission, row)
        self._searched_frames = max(self._searched_frames, decoded_frames)
        update = self.append(*settled, self._settled_frames())
        rest, before = self._tree.ranked(1)[0].rest.tokens, self._tentative
        self._tentative = self._detokenizer.preview(rest) if rest else ""
        if before and update is NOTHING:
            update = Update(tentative=self._tentative)  # news, also where there is no such text any more
        return self._with_tentative(self._with_early(update) if decoded_frames else update)

    def decide(self, frames: int) -> Update:
        """Decides the ends of utterances over this many further frames, as far as their labels are settled."""
        self._searched_frames += frames
        decided = self._with_early(super().append([], [], [], (), self._settled_frames()))
        return decided if decided is NOTHING else self._with_tentative(decided)

    def _with_tentative(self, update: Update) -> Update:
        return update._replace(tentative=self._tentative) if self._tentative else update

    def _with_early(self, update: Update) -> Update:
        """Adds the utterances that have ended if the best hypothesis remains the best one."""
        rest = self._tree.ranked(1)[0].rest
        if self._endpointer is None or not rest.tokens:
            return update
        sure = rest.confidences or list(map(math.exp, rest.log_probs))
        ends = self._endpointer.preview(rest.tokens, rest.frames, sure, self._searched_frames)
        early = tuple(one for one in ends.final if one.end_s > self._early_s)  # of a pause that had none
        if not early:
            return update
        self._early_s = early[-1].decided_s
        return update._replace(early=(*update.early, *early))

    def _settled_frames(self) -> int:
        return self._tree.settled_frames(self._searched_frames) if self.decides_ends else 0

    def finish(self, samples: int | None = None) -> Update:
        """Ends the text with the best hypothesis; see `Hypothesis.finish`."""
        if self._n_best is not None:
            return NOTHING
        ranked = self._tree.ranked(self._count) if self.is_whole else []
        self._n_best = tuple(map(self._alternative, ranked))
        return self.append(*self._tree.collapse()) + super().finish(samples)

    def _alternative(self, ranked: Ranked) -> Alternative:
        tokens, frames = (*self.tokens, *ranked.rest.tokens), (*self.frames, *ranked.rest.frames)
        log_probs = *self.log_probs, *ranked.rest.log_probs
        return Alternative(self._tokenizer.decode(tokens), tokens, frames, log_probs, ranked.score)

    def transcript(self, samples: int, lookahead: int, mode: str, notes: Sequence[str] = ()) -> Transcript:
        """Returns the transcript of a stream of `samples` samples, whose text ends; see `Hypothesis.transcript`."""
        transcript = super().transcript(samples, lookahead, mode, notes)
        return replace(transcript, n_best=self._n_best or ())
