"""Errors of writing: short reasons, and no tracebacks of orbax and tensorstore."""

import asyncio
import logging
import resource
import sys

import pytest

from nemojax import checkpoint
from nemojax.errors import CheckpointError
from nemojax.write_errors import print_no_tracebacks, reason
from tests.helpers.messages import ending

TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Error writing "a/0" at local file "/x/": Failed to write 83982 bytes to file 17: '
    "No space left on device [os_error_code='28']"
)


@pytest.mark.parametrize(
    "error,text",
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError(TENSORSTORE), "No space left on device"),
        (ValueError("one line\nand another"), "one line"),
        (OSError("no number"), "no number"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_reason_is_what_the_system_says_or_the_first_line(error, text):
    assert reason(error) == text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax's futures
def test_a_write_that_fails_prints_no_traceback(tmp_path, tiny_model, capfd, caplog):
    """A real one: files may not grow beyond a few bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=ending(" can't be written: File too large")):
            checkpoint.save(tmp_path / "out", tiny_model, b"", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "Traceback" not in capfd.readouterr().err and not [record for record in caplog.records if record.exc_info]
    assert list(tmp_path.iterdir()) == []


def test_other_records_and_errors_pass(monkeypatch, caplog):
    passed = []
    logger = logging.getLogger("absl")
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(sys, "excepthook", lambda *error: passed.append(error))
    print_no_tracebacks()
    hook = sys.excepthook
    print_no_tracebacks()  # changes nothing
    assert sys.excepthook is hook
    for path in ("/site-packages/orbax/a.py", "/site-packages/other/a.py"):
        for error in (None, (ValueError, ValueError("x"), None)):
            logger.handle(logging.LogRecord("absl", logging.ERROR, path, 1, path, (), error))
    assert [(record.pathname.split("/")[2], bool(record.exc_info)) for record in caplog.records] == [
        ("orbax", False),
        ("other", False),
        ("other", True),
    ]
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError) as called:
        loop.call_soon_threadsafe(print)
    sys.excepthook(RuntimeError, called.value, called.tb)  # of a caller in Python
    assert len(passed) == 1
    sys.excepthook(RuntimeError, called.value, called.tb.tb_next)  # of tensorstore, which is not in the traceback
    assert len(passed) == 1
