"""Replay: other data beside the new, at a share of an epoch, so that a model keeps what it knows (Robins 1995)."""

import dataclasses

import numpy as np

from nemojax.data.corpus import Corpus
from nemojax.errors import ConfigError


def with_replay(corpus: Corpus, first: int, share: float) -> Corpus:
    """Returns the corpus with other weights for the sources from `first` on: they are `share` of an epoch's audio.

    Their weights among each other stay as they are.

    Raises:
      ConfigError: none of their utterances, or none of the others, is left in the corpus.
    """
    replayed = corpus.sources >= first
    seconds = corpus.samples * corpus.weights
    new, old = seconds[~replayed].sum(), seconds[replayed].sum()
    if not old or not new:
        raise ConfigError(
            f"the manifests of {'replay' if new else 'train'} leave nothing to train on: {corpus.report()}"
        )
    scale = share / (1 - share) * new / old
    return dataclasses.replace(corpus, weights=np.where(replayed, corpus.weights * scale, corpus.weights))
