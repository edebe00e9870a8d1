"""The small English model that comes with the package; `small/README.md` is its model card."""

from pathlib import Path

SMALL = Path(__file__).parent / "small"  # a checkpoint, with an example recording
SMALL_NOTE = (
    "this is the small model that comes with nemojax, trained for the voices and words of a few English corpora "
    "(GRID commands, single digits, synthetic sentences); other speech gives nonsense"
)
EXAMPLE = SMALL / "example.ogg"
