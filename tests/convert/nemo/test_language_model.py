"""Language models of NeMo, without torch: archives like those that it writes, and others that are refused."""

import io
import tarfile

import numpy as np
import pytest

from convert.errors import ConvertError
from convert.nemo import torch_format
from convert.nemo.language_model import ARRAYS, read_language_model
from nemojax.errors import LanguageModelError
from nemojax.recognition import language_models
from tests.decoding.test_graphs import looked_up
from tests.helpers.messages import ending

TARGET = "nemo.collections.asr.parts.submodules.ngram_lm.ngram_lm_batched.NGramGPULanguageModel"
PIECES = ("a", "b", "c")
# the root with all labels, `<s>` with one, and label 0 with one
GOOD = {
    "start_end_arcs": np.array([[0, 3], [3, 4], [4, 5]], np.int32),
    "backoff_to_states": np.array([0, 0, 0], np.int32),
    "backoff_weights": np.array([0, -0.5, -0.25], np.float32),
    "ilabels": np.array([0, 1, 2, 0, 2, 0, 0, 0], np.int32),  # NeMo fills arrays up
    "arcs_weights": np.array([-1, -2, -np.inf, -0.5, -0.75, 0, 0, 0], np.float32),
    "to_states": np.array([2, 0, 0, 2, 0, 0, 0, 0], np.int32),
}


def archive(path, arrays, target=TARGET):
    data = io.BytesIO()
    torch_format.write(data, arrays.items(), arrays)
    with tarfile.open(path, "w") as tar:
        for name, content in (
            ("model_config.yaml", f"target: {target}\n".encode()),
            ("model_weights.ckpt", data.getvalue()),
        ):
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_arrays_are_read_as_they_are(tmp_path):
    found = read_language_model(archive(tmp_path / "lm.nemo", GOOD))
    assert set(found) == {*ARRAYS, "start"} and found["start"] == 1
    for name, array in GOOD.items():
        np.testing.assert_array_equal(found[name], array)


def test_another_archive_is_refused(tmp_path):
    with pytest.raises(ConvertError, match=ending("is not a language model (NGramGPULanguageModel), but 'x.Other'")):
        read_language_model(archive(tmp_path / "other.nemo", GOOD, "x.Other"))
    less = {name: array for name, array in GOOD.items() if name != "ilabels"}
    with pytest.raises(ConvertError, match=ending("has no array ilabels as language models of NeMo have it")):
        read_language_model(archive(tmp_path / "less.nemo", less))


def test_the_graph_is_that_of_the_arrays(tmp_path, monkeypatch):
    def convert(command, model, out):
        assert command == "lm"
        np.savez(out, **read_language_model(model))

    monkeypatch.setattr(language_models, "run_converter", convert)
    graph = language_models.read_language_model(archive(tmp_path / "lm.nemo", GOOD), PIECES)
    assert looked_up(graph, graph.start, 0) == (pytest.approx(-0.5), 2)
    assert looked_up(graph, 2, 1) == (pytest.approx(-2.25), 0) and looked_up(graph, 2, 2) == (pytest.approx(-0.75), 0)
    assert looked_up(graph, 1, 2)[0] == pytest.approx(-0.5 - 99 * np.log(10))  # NeMo has no floor
    message = "lm.nemo: it is over 3 pieces, and the model's tokenizer has 2; estimate it over these, with nemojax lm"
    with pytest.raises(LanguageModelError, match=ending(message)):
        language_models.read_language_model(tmp_path / "lm.nemo", PIECES[:2])
    for name, value in (
        ("backoff_to_states", [0, 2, 1]),  # a circle
        ("to_states", [2, 0, 3, 2, 0, 0, 0, 0]),
        ("ilabels", [0, 2, 1, 0, 2, 0, 0, 0]),
        ("ilabels", [0, 1, 2, 3, 2, 0, 0, 0]),  # there are three labels
        ("ilabels", [-1, 1, 2, 0, 2, 0, 0, 0]),
        ("backoff_weights", [0, np.nan, 0]),
        ("start_end_arcs", [[0, 3], [3, 4], [4, 50]]),
    ):
        damaged = GOOD | {name: np.array(value, GOOD[name].dtype)}
        message = "bad.nemo: its arrays contradict each other: it is damaged, or another kind of model"
        with pytest.raises(LanguageModelError, match=ending(message)):
            language_models.read_language_model(archive(tmp_path / "bad.nemo", damaged), PIECES)
