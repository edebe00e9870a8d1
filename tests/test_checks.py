from pathlib import Path

import numpy as np
import pytest

from nemojax.checks import check_count, check_local, check_seconds, check_weight
from nemojax.errors import ConfigError

NOT_NUMBERS = ["1", None, True, (), 1j, float("nan"), float("inf"), -float("inf"), -1]


def test_counts():
    for good in (1, 7, np.int64(3)):
        check_count("size", good)
    check_count("index", 0, minimum=0)
    for bad in (*NOT_NUMBERS, 0, 1.0, np.float32(2)):
        with pytest.raises(ConfigError, match="size must be a whole number of at least 1, not "):
            check_count("size", bad)


def test_weights():
    for good in (0, 0.5, 100, np.float32(2), np.int64(3)):
        check_weight("weight", good)
    for bad in (*NOT_NUMBERS, 100.1, -1e-9, np.float32("nan")):
        with pytest.raises(ConfigError) as caught:
            check_weight("weight", bad)
        assert str(caught.value) == f"weight must be a number from 0 to 100, not {bad!r}"


def test_seconds():
    for good in (0, 0.5, 3, np.float32(0.5), np.int64(3), 1e9):
        check_seconds("wait_s", good)
    for bad in (*NOT_NUMBERS, 1e300, np.float32("nan")):
        with pytest.raises(ConfigError, match="wait_s must be at least 0 and at most "):
            check_seconds("wait_s", bad)
    check_seconds("wait_s", 1e-9, positive=True)
    for value, positive, least in ((0.0, True, "more than 0"), (-1, True, "more than 0"), (2e9, False, "at least 0")):
        with pytest.raises(ConfigError) as caught:
            check_seconds("wait_s", value, positive=positive)
        assert str(caught.value) == f"wait_s must be {least} and at most 1e+09 seconds, not {value!r}"


@pytest.mark.parametrize("form", [str, Path])
@pytest.mark.parametrize("place", ["gs://bucket/run", "s3://bucket/run"])
def test_an_address_is_no_place_to_write_to(place, form):
    with pytest.raises(ConfigError) as caught:
        check_local(form(place))
    assert str(caught.value) == (
        f"{place} is an address, and nemojax writes to directories of this machine alone; mount the bucket "
        "(gcsfuse, s3fs), or write to a directory and copy it"
    )


@pytest.mark.parametrize("place", ["runs/first", "/tmp/gs:/x", "C:/run", Path("a:b/c"), "gs:"])
def test_directories_are(place):
    check_local(place)
