"""`nemojax convert`, `nemojax experiments` and `nemojax-convert`: the command lines of the companions."""

import sys
from collections.abc import Sequence

from nemojax import companions
from nemojax.errors import NemojaxError, shown


def convert() -> int:
    """Convert checkpoints from and to NeMo and Hugging Face; quantize, export, push."""
    return companions.run("convert", ())


def experiments() -> int:
    """Train, fine-tune, evaluate and measure; without a name, list all experiments."""
    return companions.run("experiments", ())


COMMANDS = {"convert": convert, "experiments": experiments}  # they read their arguments themselves


def convert_main(arguments: Sequence[str] | None = None) -> int:
    """Runs `nemojax-convert`; returns its exit code."""
    try:
        return companions.run("convert", sys.argv[1:] if arguments is None else arguments)
    except NemojaxError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 2
