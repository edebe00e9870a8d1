"""The small English model that comes with the package; `small/README.md` is its model card."""

from pathlib import Path

SMALL = Path(__file__).parent / "small"  # a checkpoint, with an example recording
SMALL_NAME = "small"  # for which a path to a model is not needed
SMALL_NOTE = (
    "without --model, the small English model of the package is used; it was trained on GRID commands, single digits "
    "and synthetic sentences, and its text of other speech is nonsense"
)
EXAMPLE = SMALL / "example.ogg"
