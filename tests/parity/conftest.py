"""The models of each size, and the table of comparisons at the end of a run.

Seeds are fresh each time; the environment variable NEMOJAX_PARITY_SEED repeats a run.
"""

import os
import secrets

import pytest

from tests.parity.seams import Seams

SEED = int(os.environ.get("NEMOJAX_PARITY_SEED") or secrets.randbelow(1_000_000))
SEAMS = Seams()


@pytest.fixture(scope="session")
def seams() -> Seams:
    return SEAMS


@pytest.fixture(scope="session")
def parity_seed() -> int:
    return SEED


@pytest.fixture(scope="session", params=["tiny", "tinybias", "short"])
def pair(request, tmp_path_factory):
    import torch

    from tests.parity.pair import Pair

    torch.set_num_threads(1)  # the models are small
    return Pair(request.param, SEED, tmp_path_factory.mktemp(request.param))


def pytest_report_header() -> str:
    return f"parity seed {SEED}; NEMOJAX_PARITY_SEED={SEED} repeats this run"


def pytest_terminal_summary(terminalreporter) -> None:
    if SEAMS.lines or SEAMS.tokens:
        terminalreporter.section(f"nemojax against the references, seed {SEED}")
        for line in SEAMS.table():
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"NEMOJAX_PARITY_SEED={SEED} repeats this run")
