"""N-gram language models of NeMo: a .nemo archive of arrays, without torch."""

from pathlib import Path

import numpy as np

from convert.errors import ConvertError, short
from convert.nemo import settings, torch_format
from convert.nemo.archive import open_nemo
from convert.nemo.checkpoint import WEIGHTS
from convert.sections import MAX_SETTINGS_BYTES

CLASS = "NGramGPULanguageModel"
ARRAYS = {
    "start_end_arcs": "i",
    "backoff_to_states": "i",
    "backoff_weights": "f",
    "ilabels": "i",
    "arcs_weights": "f",
    "to_states": "i",
}


def read_language_model(path: Path, scratch: Path | None = None) -> dict[str, np.ndarray]:
    """Returns the arrays of a language model: those of `ARRAYS`, and `start`, the state of a new stream.

    Raises:
      ConvertError: it is another archive, or a damaged one; says what is wrong.
    """
    members = open_nemo(path, scratch)
    try:
        for name in (settings.FILE, WEIGHTS):
            if name not in members:
                raise ConvertError(f"has no {name}")
        if members[settings.FILE].size > MAX_SETTINGS_BYTES:
            raise ConvertError(f"has a {settings.FILE} of more than {MAX_SETTINGS_BYTES >> 20} MB")
        parsed = settings.parse(members[settings.FILE].read())
        if str(parsed.get("target", "")).rpartition(".")[2] != CLASS:
            raise ConvertError(f"is not a language model ({CLASS}), but {short(parsed.get('target'))}")
        tensors = torch_format.read(members[WEIGHTS])
        for name, kind in ARRAYS.items():
            if name not in tensors or tensors[name].dtype.kind != kind:
                raise ConvertError(f"has no array {name} as language models of NeMo have it")
        arrays = {name: np.asarray(tensors[name]) for name in ARRAYS}
        return arrays | {"start": np.asarray(1 if parsed.get("separate_bos_state", True) else 0)}
    except ConvertError as error:
        raise ConvertError(f"{path}: {error}") from None
