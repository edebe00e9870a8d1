"""The command line: `python -m convert` or `nemojax-convert`.

    nemo MODEL OUT           converts a NeMo archive to a native checkpoint
    hf MODEL OUT             converts a Hugging Face checkpoint to a native checkpoint
    to-nemo DIRECTORY OUT    converts a native checkpoint to a NeMo archive
    to-hf DIRECTORY OUT      converts a native checkpoint to a Hugging Face directory
    int8 DIRECTORY OUT       quantizes the encoder of a native checkpoint to int8
    lm MODEL OUT             converts a language model of NeMo to arrays of NumPy
    stablehlo DIRECTORY OUT  exports the streaming step of a native checkpoint, to run without nemojax
    onnx DIRECTORY OUT       exports it as an ONNX graph, to run in onnxruntime
    push DIRECTORY TARGET    writes a native checkpoint as a repository with a model card, on the hub or in a folder

MODEL is a file, a directory, or a name on the hub. `nemo` and `hf` differ only for a place that has both forms.

The exit code is 0; or 2 if the conversion is impossible: then standard error has one sentence, and nothing is written.
"""

import logging
import math
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tqdm import tqdm

from convert import hub, huggingface, nemo, onnx_step, push, stablehlo
from convert.errors import MAX_MESSAGE, ConvertError, reason
from convert.names import Form
from convert.output import Progress, check_new, check_room, new_file
from convert.source import Source, read_native, shapes
from nemojax import checkpoint
from nemojax.config import ModelConfig
from nemojax.errors import NemojaxError, shown
from nemojax.kernels import quantization
from nemojax.model.transducer import Transducer

Model = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
Native = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIRECTORY")]
Out = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
Target = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TARGET")]
Skip = Annotated[tuple[str, ...], tyro.conf.arg(name="skip-setting", metavar="NAME")]


def from_nemo(model: Model, out: Out, /, revision: str | None = None, skip_setting: Skip = ()) -> None:
    """Converts a NeMo archive to a native checkpoint.

    Args:
      model: the .nemo file, a directory that has one, or a name on the hub.
      out: the new directory.
      revision: branch, tag or commit on the hub.
      skip_setting: unknown settings to ignore, by full name; name only settings without effect on the output.
    """
    _convert(model, "nemo", out, revision, skip_setting)


def from_huggingface(model: Model, out: Out, /, revision: str | None = None, skip_setting: Skip = ()) -> None:
    """Converts a Hugging Face checkpoint to a native one.

    Args:
      model: a directory, or a name on the hub such as nvidia/nemotron-speech-streaming-en-0.6b. If it has no Hugging
        Face checkpoint, its .nemo archive is converted.
      out: the new directory.
      revision: branch, tag or commit on the hub.
      skip_setting: unknown settings to ignore, by full name; name only settings without effect on the output.
    """
    _convert(model, "huggingface", out, revision, skip_setting)


def to_nemo(directory: Native, out: Out, /) -> None:
    """Converts a native checkpoint to a NeMo archive.

    Args:
      directory: the native checkpoint.
      out: the new .nemo file.
    """
    _report(out, nemo.write(directory, out, _bar("writing")))


def to_huggingface(directory: Native, out: Out, /) -> None:
    """Converts a native checkpoint to a Hugging Face directory.

    Args:
      directory: the native checkpoint.
      out: the new directory.
    """
    _report(out, huggingface.write(directory, out, _bar("writing")))


def to_int8(directory: Native, out: Out, /) -> None:
    """Quantizes the encoder of a native checkpoint to int8, the fastest type on a CPU.

    Args:
      directory: the native checkpoint.
      out: the new directory.
    """
    check_new(out)
    model, config, tokenizer, origin = read_native(directory)
    _write_native(out, quantization.quantize(model), tokenizer, origin | {"int8": True}, "writing")
    _report(out, config)


def language_model(model: Model, out: Out, /) -> None:
    """Converts an n-gram language model of NeMo to arrays of NumPy.

    Args:
      model: the .nemo file.
      out: the new .npz file.
    """
    check_new(out)
    arrays = nemo.read_language_model(Path(model), out.absolute().parent)
    with new_file(out, sum(array.nbytes for array in arrays.values())) as path, path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # the names are none of its arguments
    print(f"{shown(str(out))}: {len(arrays['start_end_arcs']):,} states")


def to_stablehlo(
    directory: Native,
    out: Out,
    /,
    lookaheads: tuple[int, ...] = (),
    dtype: stablehlo.Dtype = "float32",
    platforms: tuple[stablehlo.Platform, ...] = ("cpu",),
    weights: stablehlo.Placement = "beside",
    mlir: bool = False,
) -> None:
    """Exports the streaming step of a native checkpoint through jax.export, to run without nemojax.

    Args:
      directory: the native checkpoint.
      out: the new directory; its manifest.json describes the steps, its run.py is an example that runs them.
      lookaheads: in encoder frames, one step for each; by default all that the model was trained with.
      dtype: type of the weights.
      platforms: where the steps may run.
      weights: once in a file beside the steps, or inside each step.
      mlir: also write each step as plain MLIR bytecode.
    """
    config = stablehlo.write(directory, out, lookaheads, dtype, platforms, weights, mlir, _bar("exporting", " steps"))
    _report(out, config)


def to_onnx(directory: Native, out: Out, /, lookahead: int | None = None, streams: int = 1) -> None:
    """Exports the streaming step of a native checkpoint as one ONNX graph, to run in onnxruntime; it takes a minute.

    Args:
      directory: the native checkpoint.
      out: the new directory; its manifest.json describes the graph, its run.py is an example that runs it.
      lookahead: in encoder frames; by default the first that the model was trained with.
      streams: number of streams that one call of the graph advances.
    """
    _report(out, onnx_step.write(directory, out, lookahead, streams))


def to_hub(
    directory: Native,
    target: Target,
    /,
    form: Form = "huggingface",
    license: str | None = None,
    language: str | None = None,
    revision: str | None = None,
    private: bool = False,
) -> None:
    """Writes a native checkpoint as a repository with a model card, on the hub or in a folder.

    Args:
      directory: the native checkpoint.
      target: a name on the hub (owner/model), which needs a login of its client (HF_TOKEN, or `hf auth login`); or a
        new folder, whose path begins with / or a dot.
      form: of the checkpoint in the repository.
      license: its identifier on the hub, such as apache-2.0, for the model card.
      language: its code, such as en, for the model card.
      revision: branch on the hub; by default the main one.
      private: a new repository is private.
    """
    native, address = push.write(directory, target, form, license, language, revision, private, _bar("writing"))
    _report(address, native.config)


COMMANDS: dict[str, Callable[..., None]] = {
    "nemo": from_nemo,
    "hf": from_huggingface,
    "to-nemo": to_nemo,
    "to-hf": to_huggingface,
    "int8": to_int8,
    "lm": language_model,
    "stablehlo": to_stablehlo,
    "onnx": to_onnx,
    "push": to_hub,
}


def _bar(description: str, unit: str = " tensors") -> Progress:
    return partial(tqdm, desc=description, unit=unit, leave=False, disable=None)  # shown on a terminal only


def _convert(model: str, form: Form, out: Path, revision: str | None, skipped: tuple[str, ...]) -> None:
    """Converts the checkpoint of a place, in its preferred form, to a native one."""
    check_new(out)  # first: downloading and reading take time
    path = hub.locate(model, form, revision)
    if path.is_dir():
        return _save(huggingface.read(path, skipped), out)
    parent = out.absolute().parent  # a compressed archive is decompressed where the output goes
    _save(nemo.read(path, parent if parent.is_dir() else None, skipped), out)


def _save(source: Source, out: Path) -> None:
    """Writes a checkpoint of another toolkit as a native one."""
    for note in source.notes:
        print(note)
    check_room(out, sum(tensor.nbytes for tensor in source.tensors.values()))
    _write_native(out, source.model(), source.tokenizer, source.origin, "converting")
    _report(out, source.config)


def _write_native(out: Path, model: Transducer, tokenizer: bytes, origin: dict[str, Any], description: str) -> None:
    try:
        checkpoint.save(out, model, tokenizer, origin, _bar(description))
    except NemojaxError:
        raise
    except Exception as error:  # orbax and tensorstore raise errors without a common type if they can't write
        raise ConvertError(f"{out} can't be written: {reason(error)}") from None


def _report(out: Path | str, config: ModelConfig) -> None:
    sizes = [math.prod(shape) for shape in shapes(config).values()]
    print(f"{shown(str(out))}: {sum(sizes):,} parameters in {len(sizes)} tensors, {config.vocabulary} pieces")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 2 and a sentence on standard error if it is impossible."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs a failed write once per thread
    # as an exception, so that temporary files are removed
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="nemojax-convert", description=__doc__.partition("\n\n")[2], args=arguments
        )
    except (NemojaxError, OSError, MemoryError) as error:
        print(f"error: {shown(str(error), MAX_MESSAGE) or type(error).__name__}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
