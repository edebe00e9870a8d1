"""The RNN-T loss by its definition: all alignments, one by one, in float64."""

import itertools
from collections.abc import Iterator

import numpy as np


def alignments(frames: int, labels: int) -> Iterator[list[tuple[int, int, bool]]]:
    """Every alignment as its moves (t, u, is a label); the last is a blank."""
    moves = frames + labels
    for label_moves in itertools.combinations(range(moves - 1), labels):
        path, t, u = [], 0, 0
        for move in range(moves):
            is_label = move in label_moves
            path.append((t, u, is_label))
            t, u = (t, u + 1) if is_label else (t + 1, u)
        yield path


def sum_alignments(log_blank: np.ndarray, log_label: np.ndarray, frames: int, labels: int):
    """One row's loss, and each move's share of the probability: (loss, blanks [T, S], labels [T, S])."""
    log_probs = np.stack([log_blank, log_label], axis=-1).astype(np.float64)
    share = np.zeros_like(log_probs)
    if frames == 0:
        return 0.0, share[..., 0], share[..., 1]
    paths = list(alignments(frames, labels))
    scores = np.array([sum(log_probs[t, u, int(is_label)] for t, u, is_label in path) for path in paths])
    total = np.logaddexp.reduce(scores)
    for path, score in zip(paths, scores, strict=True):
        for t, u, is_label in path:
            share[t, u, int(is_label)] += np.exp(score - total)
    return -total, share[..., 0], share[..., 1]


def sum_alignments_of_logits(logits: np.ndarray, labels: np.ndarray, frames: int, blank: int, fastemit: float = 0.0):
    """One row's loss and the gradient of its logits [T, S, V]; `labels` are the valid ones alone."""
    logits = logits.astype(np.float64)
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    log_label = np.zeros(logits.shape[:2])
    for u, label in enumerate(labels):
        log_label[:, u] = log_probs[:, u, label]
    loss, blanks, label_share = sum_alignments(log_probs[..., blank], log_label, frames, len(labels))
    d_log_probs = np.zeros_like(logits)
    d_log_probs[..., blank] -= blanks
    for u, label in enumerate(labels):
        d_log_probs[:, u, label] -= (1 + fastemit) * label_share[:, u]
    gradient = d_log_probs - np.exp(log_probs) * d_log_probs.sum(-1, keepdims=True)
    return (1 + fastemit) * loss, gradient
