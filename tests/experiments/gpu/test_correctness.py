"""Comparing outputs, and the cases that are compared."""

import numpy as np
import pytest

from experiments.gpu import correctness
from experiments.gpu.correctness import Output


def test_errors_and_labels_are_compared():
    reference = Output(np.ones((2, 3, 4)), [[1], [2, 3]], [[0], [1, 2]])
    output = Output(np.ones((2, 3, 4)) * 1.01, [[1], [2, 4]], [[0], [1, 2]])
    row = correctness.compare(output, reference)
    assert row["relative_error"] == pytest.approx(0.01) and row["streams_identical"] == 1 and row["frames"] == 6
    moved = correctness.compare(reference._replace(frames=[[1], [1, 2]]), reference)
    assert moved["streams_identical"] == 1 and moved["relative_error"] == 0


def test_an_error_that_is_not_finite_is_none():
    assert correctness.relative_error(np.full(2, np.nan), np.ones(2)) is None


@pytest.mark.parametrize("dry", [False, True])
def test_references_come_before_their_cases(dry):
    cases = correctness.cases(dry)
    assert len(cases) == len(set(cases))
    for number, case in enumerate(cases):
        references = correctness.references(case)
        assert set(references) <= set(cases[:number])
        assert len(references) == (2 if case.place == "gpu" and case.dtype == "bfloat16" else 1) or case.place == "cpu"
