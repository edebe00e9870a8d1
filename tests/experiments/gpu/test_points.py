"""Points, written and read, and the checks of sizes."""

import pytest

from experiments.gpu.points import DRY, Point, Sizes, parse_point, plain_and_fused
from nemojax.errors import ConfigError


@pytest.mark.parametrize(
    "text, point",
    [
        ("1024@0", Point(1024, 0)),
        ("1@13/fused/launches", Point(1, 13, "fused", buffers=False)),
        ("16@0/narrow/active=1", Point(16, 0, "narrow", active=1)),
        ("64@6/encoder", Point(64, 6, part="encoder")),
    ],
)
def test_a_point_is_read_and_written(text, point):
    assert parse_point(text) == point == parse_point(str(point))


@pytest.mark.parametrize("text", ["", "0@1", "8", "8@1/other", "8@0/active=9", "8@0/active=0"])
def test_other_text_is_an_error(text):
    with pytest.raises(ConfigError, match=r"not a point|none of"):
        parse_point(text)


def test_both_variants_of_points():
    assert plain_and_fused("1@0", "2@1") == ("1@0/plain", "1@0/fused", "2@1/plain", "2@1/fused")


@pytest.mark.parametrize(
    "values, message",
    [({"offline_s": 0}, "durations"), ({"tables": ("8",)}, "not a point"), ({"calibration": ()}, "at least one")],
)
def test_sizes_are_checked(values, message):
    with pytest.raises(ConfigError, match=message):
        Sizes(**values)
    assert Sizes() != DRY
