"""The small English model that comes with the package; `small/README.md` is its model card."""

from pathlib import Path

SMALL = Path(__file__).parent / "small"  # a checkpoint, with an example recording
EXAMPLE = SMALL / "example.ogg"
