"""The command line: `python -m convert` or `nemojax-convert`.

    nemo MODEL.nemo OUT    a NeMo archive to a native checkpoint
    hf DIRECTORY OUT       a Hugging Face directory, or a name on the hub, to a native checkpoint
    to-nemo DIRECTORY OUT  a native checkpoint to a NeMo archive
    to-hf DIRECTORY OUT    a native checkpoint to a Hugging Face directory
    int8 DIRECTORY OUT     a native checkpoint to one whose encoder has its weights in int8

Exit code 0; 2 with a sentence on standard error where something can't be converted, and nothing written.
"""

import logging
import math
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from convert.errors import ConvertError, reason
from convert.huggingface import checkpoint as huggingface
from convert.nemo import checkpoint as nemo
from convert.output import check_new
from convert.source import Source, read_native, shapes
from nemojax import checkpoint
from nemojax.config import ModelConfig
from nemojax.errors import CheckpointError
from nemojax.kernels import quantization

Archive = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL.nemo")]
Model = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIRECTORY|NAME")]
Native = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIRECTORY")]
Out = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
Skip = Annotated[tuple[str, ...], tyro.conf.arg(name="skip-setting", metavar="NAME")]


def from_nemo(model: Archive, out: Out, /, skip_setting: Skip = ()) -> None:
    """A NeMo archive to a native checkpoint.

    Args:
      model: the .nemo file.
      out: the new directory.
      skip_setting: unknown settings, by their full names, that are known to change nothing that is computed.
    """
    check_new(out)  # before anything is read or fetched
    place = out.absolute().parent  # where there must be room anyway
    _save(nemo.read(model, place if place.is_dir() else None, skip_setting), out)


def from_huggingface(model: Model, out: Out, /, revision: str | None = None, skip_setting: Skip = ()) -> None:
    """A Hugging Face checkpoint to a native one.

    Args:
      model: a directory, or a name on the hub such as nvidia/nemotron-speech-streaming-en-0.6b.
      out: the new directory.
      revision: branch, tag or commit on the hub.
      skip_setting: unknown settings, by their full names, that are known to change nothing that is computed.
    """
    check_new(out)  # before anything is read or fetched
    _save(huggingface.read(huggingface.fetch(model, revision), skip_setting), out)


def to_nemo(directory: Native, out: Out, /) -> None:
    """A native checkpoint to a NeMo archive.

    Args:
      directory: the native checkpoint.
      out: the new .nemo file.
    """
    _report(out, nemo.write(directory, out, _bar("writing")))


def to_huggingface(directory: Native, out: Out, /) -> None:
    """A native checkpoint to a Hugging Face directory.

    Args:
      directory: the native checkpoint.
      out: the new directory.
    """
    _report(out, huggingface.write(directory, out, _bar("writing")))


def to_int8(directory: Native, out: Out, /) -> None:
    """A native checkpoint to one whose encoder has its weights in int8, the fastest on a CPU.

    Args:
      directory: the native checkpoint.
      out: the new directory.
    """
    check_new(out)
    model, config, tokenizer, origin = read_native(directory)
    checkpoint.save(out, quantization.quantize(model), tokenizer, origin | {"int8": True}, _bar("writing"))
    _report(out, config)


COMMANDS: dict[str, Callable[..., None]] = {
    "nemo": from_nemo,
    "hf": from_huggingface,
    "to-nemo": to_nemo,
    "to-hf": to_huggingface,
    "int8": to_int8,
}


def _bar(what: str) -> Callable[[Iterable], Iterable]:
    return partial(tqdm, desc=what, unit=" tensors", leave=False, disable=None)  # on a terminal


def _save(source: Source, out: Path) -> None:
    for note in source.notes:
        print(note)
    check_new(out, sum(tensor.nbytes for tensor in source.tensors.values()))
    try:
        checkpoint.save(out, source.model(), source.tokenizer, source.origin, _bar("converting"))
    except (ConvertError, CheckpointError):
        raise
    except Exception as error:  # what orbax and tensorstore raise when they can't write has no common type
        raise ConvertError(f"{out} can't be written: {reason(error)}") from None
    _report(out, source.config)


def _report(out: Path, config: ModelConfig) -> None:
    sizes = [math.prod(shape) for shape in shapes(config).values()]
    print(f"{out}: {sum(sizes):,} parameters in {len(sizes)} tensors, {config.vocabulary} pieces")


def main(arguments: Sequence[str] | None = None) -> None:
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs a failed write once per thread
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that nothing half-written stays
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="nemojax-convert", description=__doc__.partition("\n\n")[2], args=arguments
        )
    except (ConvertError, CheckpointError, OSError, MemoryError) as error:
        sys.exit(_failed(str(error) or type(error).__name__))
    except KeyboardInterrupt:
        sys.exit(130)


def _failed(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
