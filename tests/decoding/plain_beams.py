"""The beam searches by their definitions: one hypothesis at a time, in float64, with lists and dictionaries."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from tests.decoding.test_graphs import looked_up

predict = jax.jit(lambda model, label, state: model.prediction.step(label, state))


@jax.jit
def label_scores(model, frame, output):
    """Log-probabilities of one frame's labels and blank, [V]."""
    return jax.nn.log_softmax(model.joint.logits(model.joint.encoder(frame), model.joint.prediction(output))[0])


@dataclass(frozen=True)
class Hypothesis:
    labels: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    score: float = 0.0
    frame: int = 0  # at which it stands
    here: int = 0  # labels at this frame
    output: Any = None
    lstm: Any = None
    states: tuple[int, ...] = ()  # of the graphs


class Network:
    """The scores of a model for one recording, with those of graphs.

    Args:
      graphs: (graph, weight) of each; None for no graph.
      alpha: the weight of the language model, where blank is scored by `lm_weighted_full`.
    """

    def __init__(self, model, encoded, graphs=(), alpha=0.0):
        self.graphs, self.alpha = [(graph, weight) for graph, weight in graphs if graph is not None], alpha
        self.model, self.encoded, self.blank = model, np.asarray(encoded), model.config.blank
        self.margin = np.inf  # how near a decision came to another one, in log-probability

    def start(self) -> Hypothesis:
        first = predict(self.model, np.array([self.blank]), self.model.prediction.initial_cache(1))
        return Hypothesis(output=first[0], lstm=first[1], states=tuple(graph.start for graph, _ in self.graphs))

    def scores(self, frame: int, hypothesis: Hypothesis) -> np.ndarray:
        return np.asarray(label_scores(self.model, self.encoded[frame][None], hypothesis.output), np.float64)

    def fused(self, scores: np.ndarray, hypothesis: Hypothesis) -> np.ndarray:
        """Adds the scores of the graphs."""
        if not self.graphs:
            return scores.copy()
        blank = scores[self.blank]
        added = self.alpha * np.log1p(-min(np.exp(blank), 1 - 1e-6))
        for (graph, weight), state in zip(self.graphs, hypothesis.states, strict=True):
            added = added + weight * np.array([looked_up(graph, state, label)[0] for label in range(self.blank)])
        return np.append(scores[: self.blank] + added, (1 + self.alpha) * blank)

    def pending(self, hypothesis: Hypothesis) -> float:
        """What is taken back if the recording ends here."""
        states = zip(self.graphs, hypothesis.states, strict=True)
        return sum(weight * graph.pending[state] for (graph, weight), state in states)

    def best(self, found: list, width: int) -> list:
        """The best of the proposals, whose scores come first."""
        found.sort(key=lambda one: -one[0])
        if len(found) > width:
            self.margin = min(self.margin, found[width - 1][0] - found[width][0])
        return found[:width]

    def extend(self, old: Hypothesis, label: int, frame: int, log_prob: float, score: float) -> Hypothesis:
        output, lstm = predict(self.model, np.array([label]), old.lstm)
        labels, frames, log_probs = (*old.labels, label), (*old.frames, frame), (*old.log_probs, log_prob)
        states = zip(self.graphs, old.states, strict=True)
        states = tuple(looked_up(graph, state, label)[1] for (graph, _), state in states)
        return Hypothesis(labels, frames, log_probs, score, old.frame, old.here + 1, output, lstm, states)


def maes(network, length, width, expansions=2, beta=2, gamma=2.3) -> list[Hypothesis]:
    """Returns the hypotheses after `length` frames, in no order."""
    beam = [network.start()]
    for t in range(length):
        scores = {h.labels: network.fused(network.scores(t, h), h) for h in beam}
        before = {h.labels: h.score for h in beam}
        for index, h in enumerate(beam):
            shorter = h.labels[:-1]
            if h.labels and shorter in before:
                beam[index] = replace(h, score=np.logaddexp(h.score, before[shorter] + scores[shorter][h.labels[-1]]))
        open_ones, left = beam, []
        for _ in range(expansions):
            known = {h.labels for h in open_ones + left}
            found = []
            for h in open_ones:
                log_probs = network.scores(t, h)
                scores = network.fused(log_probs, h)
                together = np.log1p(-min(np.exp(log_probs[network.blank]), 1 - 1e-6))
                if together <= log_probs[network.blank] - gamma:  # all labels, without the graphs
                    scores[: network.blank] = -np.inf
                network.margin = min(network.margin, np.abs(scores - scores.max() + gamma).min())
                for label in np.argsort(-scores, kind="stable")[: width + beta].tolist():
                    near = scores[label] > scores.max() - gamma
                    if near and (label == network.blank or (*h.labels, label) not in known):
                        found.append((h.score + scores[label], h, label, log_probs[label]))
            found += [(h.score, h, None, 0.0) for h in left]
            open_ones, left = [], []
            for score, h, label, log_prob in network.best(found, width):
                if label in (None, network.blank):
                    left.append(replace(h, score=score))
                else:
                    open_ones.append(network.extend(h, label, t, log_prob, score))
        beam = left + [
            replace(h, score=h.score + network.fused(network.scores(t, h), h)[network.blank]) for h in open_ones
        ]
    return beam


def malsd(network, length, width, max_symbols) -> list[Hypothesis]:
    """Returns the hypotheses at the end of `length` frames, in no order."""
    beam = [network.start()]
    while any(h.frame < length for h in beam):
        found = []
        for h in beam:
            if h.frame == length:
                found.append((h.score, h, None, 0.0))
                continue
            scores = network.scores(h.frame, h)
            best = [network.blank] if h.here >= max_symbols else np.argsort(-scores, kind="stable")[:width].tolist()
            found += [(h.score + scores[label], h, label, scores[label]) for label in best]
        merged: dict[tuple[int, ...], Hypothesis] = {}
        for score, old, label, log_prob in network.best(found, width):
            if label is None:
                new = old
            elif label == network.blank:
                new = replace(old, score=score, frame=old.frame + 1, here=0)
            else:
                new = network.extend(old, label, old.frame, log_prob, score)
            kept = merged.setdefault(new.labels, new)
            if kept is not new:
                merged[new.labels] = replace(kept, score=np.logaddexp(kept.score, new.score))
        beam = list(merged.values())
    return beam
