"""How a beam scores frames: what blanks, labels and the last labels of hypotheses score, and what each proposes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nemojax.decoding.beam_fusion import BeamFusion, Fusing, label_log_prob
from nemojax.decoding.largest import largest
from nemojax.model.transducer import Transducer


class Graphed(NamedTuple):
    """Graphs, and the places of the hypotheses in them."""

    fusing: Fusing
    fusion: BeamFusion


class Scores(NamedTuple):
    """The scores of a window of F frames for every hypothesis; without that axis, those of one frame.

    They are log-probabilities; where there are graphs, with their scores.
    """

    logits: Float[Array, "B W F V"]
    normalizer: Float[Array, "B W F"]  # logarithm of the sum of exponentials
    offset: Float[Array, "B W F"]  # what all labels score more where they are proposed; -inf if none may be
    blank: Float[Array, "B W F"]
    best_label: Float[Array, "B W F"]  # no label scores more
    extension: Float[Array, "B W F W"]  # of the last label of each hypothesis


class Proposals(NamedTuple):
    """The best labels of each hypothesis at a frame, blank among them, the best first."""

    label: Int[Array, "B W N"]
    score: Float[Array, "B W N"]
    log_prob: Float[Array, "B W N"]  # without graphs


def score_frames(
    model: Transducer,
    frames_BFJ: Float[Array, "B F J"],
    output: Float[Array, "B W J"],
    last: Int[Array, "B W"],
    graphed: Graphed | None,
    gamma: float,
) -> Scores:
    """Scores projected frames after projected predictions; `last` are the last labels of the hypotheses.

    Graphs choose among labels, and where the model finds none, they find none either: if all labels together are less
    probable than blank by `gamma`, no label is proposed, as without graphs. Otherwise high scores find words in noise.
    """
    with jax.named_scope("joint"):
        logits = model.joint.logits(frames_BFJ[:, None], output[:, :, None])
        normalizer = model.joint.log_sum_exp(logits.reshape(-1, logits.shape[-1])).reshape(logits.shape[:-1])
    blank = logits[..., model.config.blank] - normalizer
    best_label = logits[..., : model.config.blank].max(axis=-1) - normalizer
    of_hypotheses = jnp.broadcast_to(last[:, None, None], (*blank.shape, last.shape[1]))
    extension = jnp.take_along_axis(logits, of_hypotheses, axis=-1) - normalizer[..., None]
    offset = jnp.zeros_like(blank)
    if graphed is not None:
        fusing, fusion = graphed
        offset, most = fusing.offset(blank), fusing.most(fusion)
        added = fusing.scores(fusion, last[:, None])
        extension = extension + offset[..., None] + added[:, :, None]
        all_labels = jnp.maximum(
            label_log_prob(blank), best_label
        )  # without graphs the same bits: rounding decides none
        offset = jnp.where(all_labels <= blank - gamma, -jnp.inf, offset)
        best_label = best_label + offset + most[..., None]
        blank = fusing.blank(blank)
    return Scores(logits, normalizer, offset, blank, best_label, extension)


def propose(blank: int, here: Scores, count: int, graphed: Graphed | None, active: Bool[Array, "B W"]) -> Proposals:
    """Returns what the hypotheses propose at one frame; what is not `active` may propose anything."""
    if graphed is None:
        values, labels = largest(here.logits, count)
        log_probs = values - here.normalizer[..., None]
        return Proposals(labels, log_probs, log_probs)
    fusing, fusion = graphed
    found = fusing.best(fusion, here.logits[..., :blank], count, active)
    log_probs = found.logit - here.normalizer[..., None]
    labels_only = Proposals(found.label, log_probs + here.offset[..., None] + found.score, log_probs)
    log_prob = here.logits[..., blank] - here.normalizer
    blank_only = Proposals(jnp.full_like(found.label[..., :1], blank), here.blank[..., None], log_prob[..., None])
    both = jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=-1), labels_only, blank_only)
    _, place = largest(both.score, count)
    best: Proposals = jax.tree.map(lambda x: jnp.take_along_axis(x, place, axis=-1), both)
    return best
