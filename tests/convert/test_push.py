import json

import pytest
import yaml

from convert import huggingface, model_card, nemo, push
from convert.errors import ConvertError
from convert.hub import locate
from convert.source import Native
from nemojax import __version__, checkpoint
from nemojax.config import PRESETS
from nemojax.model.parameters import abstract_model
from tests.convert.samples import CONFIG, FAMILY, converted
from tests.helpers.messages import ending, whole


def metadata(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_repository_on_the_hub(hub, native):
    directory = native(origin={"format": "nemo", "files": {"my.nemo": "ab12"}})
    made, address = push.write(directory, "owner/model", license="cc-by-4.0", language="en")
    assert made.config == CONFIG and address.startswith(f"{hub.address}/owner/model/commit/")
    files = hub.repositories["owner/model"]["main"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= files.keys()
    assert huggingface.read(locate("owner/model", "huggingface")).config == converted(CONFIG)
    card = files["README.md"].decode()
    assert metadata(card) == {
        "language": ["en"],
        "license": "cc-by-4.0",
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["automatic-speech-recognition", "streaming", "transducer", "fastconformer", "nemojax"],
    }
    assert "--model owner/model" in card and "`my.nemo`, SHA-256 `ab12`" in card
    assert card.split("```")[1] == (
        "python\nfrom transformers import pipeline\n\n"
        'print(pipeline("automatic-speech-recognition", model="owner/model")("speech.wav")["text"])\n'
    )


def test_a_repository_in_a_folder(native, tmp_path, monkeypatch):
    sizes, new_directory = [], push.new_directory
    monkeypatch.setattr(push, "new_directory", lambda path, size: sizes.append(size) or new_directory(path, size))
    made, address = push.write(native(), str(tmp_path / "model"))
    assert address == str(tmp_path / "model") and sizes == [made.nbytes]
    assert "\n# model\n" in (tmp_path / "model" / "README.md").read_text()
    assert huggingface.read(tmp_path / "model").config == converted(CONFIG)
    assert "license" not in metadata((tmp_path / "model" / "README.md").read_text())
    with pytest.raises(ConvertError, match=ending(" exists already; give another name or remove it first")):
        push.write(tmp_path / "native", str(tmp_path / "model"))


def test_the_form_of_nemo(hub, native, tmp_path, monkeypatch):
    directory = native(config=FAMILY)
    with pytest.raises(
        ConvertError, match=whole("transformers has one width for the prediction and the joint network, not 12 and 8")
    ):
        push.write(directory, str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()
    needed, uploaded = [], []
    upload = push.hub.upload
    monkeypatch.setattr(push, "check_room", lambda path, size: needed.append(size))
    monkeypatch.setattr(push.hub, "upload", lambda *given: uploaded.append(given[1:]) or upload(*given))
    made, _ = push.write(directory, "owner/model", "nemo", revision="second", private=True)
    assert needed == [2 * made.nbytes] and uploaded == [("owner/model", "second", True)]
    assert hub.repositories["owner/model"]["second"].keys() == {"README.md", "model.nemo"}
    archive = locate("owner/model", "huggingface", "second")
    assert archive.name == "model.nemo" and nemo.read(archive).config == converted(FAMILY)


def test_the_card_of_the_release():
    config = PRESETS["0.6b"]
    made = Native(abstract_model(config), config, b"", json.loads('{"format": "nemo"}'))
    card = model_card.write(made, "owner/model", "nemo", None, None)
    for row in (
        "| parameters | 618,084,865 |",
        "| encoder | 24 layers of width 1024, 8 heads |",
        "| prediction network | LSTM, 2 x 640 |",
        "| audio | 16000 Hz mono, 128 mel bins |",
        "| left context | 70 frames of 80 ms |",
        "| look-aheads in frames (chunk) | 13 (1120 ms), 6 (560 ms), 1 (160 ms), 0 (80 ms) |",
        "| vocabulary | 1024 pieces and blank |",
    ):
        assert row in card.splitlines()
    assert metadata(card)["library_name"] == "nemo"
    text = card.split("---\n", 2)[2].replace(f"nemojax {__version__} ", "nemojax 1.0 ")
    before, after = text.partition("| parameters |")[0], text.partition("mel bins |\n")[2]
    assert before == (
        "\n# owner/model\n\nA streaming speech recognizer: a cache-aware FastConformer transducer. Its delay is chosen "
        "when it runs.\n\n| | |\n| --- | --- |\n"
    )
    assert after == (
        "\n## Use\n\n    pip install nemojax\n    nemojax transcribe speech.wav --model owner/model\n\n"
        "```python\nfrom nemo.collections.asr.models import ASRModel\n\n"
        'print(ASRModel.from_pretrained("owner/model").transcribe(["speech.wav"])[0].text)\n```\n\n'
        "## Origin\n\nThe weights were made with nemo.\n\n"
        "nemojax 1.0 wrote these files. Accuracy on your data, and the license of the weights this model was made "
        "from,\n"
        "are for you to check.\n"
    )


def test_what_is_not_a_checkpoint(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match=ending(" is not a directory: there is none of this name")):
        push.write(tmp_path / "none", "owner/model")


@pytest.mark.parametrize("files", [None, {}, 3])
def test_where_the_weights_came_from(files):
    assert model_card._origin({"format": "nemo", "files": files}) == "The weights were made with nemo."
    assert model_card._origin({}) == "The weights were made with nemojax."
    listed = model_card._origin({"format": "nemo", "files": {"a.nemo": "12", "b": "34"}}).splitlines()
    assert listed[2:] == ["- `a.nemo`, SHA-256 `12`", "- `b`, SHA-256 `34`"] and "(nemo)" in listed[0]
