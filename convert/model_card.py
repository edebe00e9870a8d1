"""The model card of a repository: README.md with the metadata that the hub reads."""

import math
from typing import Any

import yaml

from convert.names import Form
from convert.source import Native, shapes
from nemojax import __version__

FILE = "README.md"
LIBRARIES: dict[Form, str] = {"huggingface": "transformers", "nemo": "nemo"}
LOADING: dict[Form, str] = {
    "huggingface": """\
from transformers import pipeline

print(pipeline("automatic-speech-recognition", model="{name}")("speech.wav")["text"])
""",
    "nemo": """\
from nemo.collections.asr.models import ASRModel

print(ASRModel.from_pretrained("{name}").transcribe(["speech.wav"])[0].text)
""",
}


def write(native: Native, name: str, form: Form, license: str | None, language: str | None) -> str:
    """Returns the model card of a checkpoint.

    Args:
      name: of the repository, or of the folder.
      form: of the checkpoint in the repository.
      license: its identifier on the hub, such as apache-2.0; None leaves it out.
      language: its code, such as en; None leaves it out.
    """
    config = native.config
    encoder, prediction, features = config.encoder, config.prediction, config.features
    parameters = sum(math.prod(shape) for shape in shapes(config).values())
    chunks = ", ".join(f"{lookahead} ({config.chunk_ms(lookahead):.0f} ms)" for lookahead in encoder.lookaheads)
    metadata = {
        **({} if language is None else {"language": [language]}),
        **({} if license is None else {"license": license}),
        "library_name": LIBRARIES[form],
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["automatic-speech-recognition", "streaming", "transducer", "fastconformer", "nemojax"],
    }
    rows = {
        "parameters": f"{parameters:,}",
        "encoder": f"{encoder.layers} layers of width {encoder.width}, {encoder.heads} heads",
        "left context": f"{encoder.left_context_frames} frames of {config.frame_ms:.0f} ms",
        "look-aheads in frames (chunk)": chunks,
        "prediction network": f"LSTM, {prediction.layers} x {prediction.width}",
        "vocabulary": f"{config.vocabulary} pieces and blank",
        "audio": f"{features.sample_rate_hz} Hz mono, {features.mel_bins} mel bins",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""\
---
{yaml.safe_dump(metadata, sort_keys=False).strip()}
---

# {name}

A streaming speech recognizer: a cache-aware FastConformer transducer. Its delay is chosen when it runs.

| | |
| --- | --- |
{table}

## Use

    pip install nemojax
    nemojax transcribe speech.wav --model {name}

```python
{LOADING[form].format(name=name).strip()}
```

## Origin

{_origin(native.origin)}

nemojax {__version__} wrote these files. Accuracy on your data, and the license of the weights this model was made from,
are for you to check.
"""


def _origin(origin: dict[str, Any]) -> str:
    """Returns where the weights came from, as far as origin.json says."""
    files = origin.get("files")
    if not isinstance(files, dict) or not files:
        return f"The weights were made with {origin.get('format', 'nemojax')}."
    lines = [f"- `{file}`, SHA-256 `{digest}`" for file, digest in files.items()]
    return "\n".join([f"The weights come from these files ({origin.get('format')}):", "", *lines])
