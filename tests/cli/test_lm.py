"""`nemojax lm`, and a language model and phrases on the command line."""

import json

import pytest

from nemojax.cli.model import load
from nemojax.recognition.language_models import read_language_model
from nemojax.recognition.stream_graphs import DEFAULT_LM_WEIGHT
from tests.decoding.test_graphs import looked_up


@pytest.fixture(scope="module")
def lm(tmp_path_factory, checkpoint_directory, recognizer):
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    text = path.with_suffix(".txt")
    text.write_text("the lazy dog\nthe quick fox\n\nthe dog\n")
    return text, path


def test_a_model_is_estimated_and_read(run, lm, recognizer):
    text, path = lm
    code, out, err = run("lm", text, path, "--order", 3)
    assert code == 0 and not err and out.startswith(f"{path}: ") and out.endswith(" of order 1 to 3, of 3 sentences\n")
    tokenizer = recognizer.tokenizer
    graph = read_language_model(path, [tokenizer.piece(label) for label in range(tokenizer.size)])
    the, dog = tokenizer.encode("the")[0], tokenizer.encode("dog")[0]
    score, _ = looked_up(graph, graph.start, the)
    assert score > looked_up(graph, graph.start, dog)[0]
    code, out, err = run("lm", text.with_name("none.txt"), path)
    assert code == 2 and err == f"error: {text.with_name('none.txt')}: it can't be read: No such file or directory\n"
    code, _, err = run("lm", text, path, "--order", 33)
    assert code == 2 and err == "error: --order must be at most 32, not 33\n"
    code, _, err = run("lm", text, path, "--order", 1, "--joined")
    assert code == 2
    assert err == "error: --joined needs an --order of at least 2: n-grams of one piece follow nothing\n"


def test_a_line_may_follow_the_one_before_it(run, tmp_path, recognizer):
    (tmp_path / "text.txt").write_text("the dog\nfox\n" * 4)
    tokenizer, scores = recognizer.tokenizer, []
    pieces = [tokenizer.piece(label) for label in range(tokenizer.size)]
    for flags in ([], ["--joined"]):
        assert run("lm", tmp_path / "text.txt", tmp_path / "lm.arpa", "--order", 2, *flags)[0] == 0
        graph = read_language_model(tmp_path / "lm.arpa", pieces)
        state = graph.start
        for label in tokenizer.encode("the dog fox"):
            score, state = looked_up(graph, state, label)
            if label == tokenizer.encode("fox")[0]:
                scores.append(score)
    alone, joined = scores
    assert joined > alone


def test_what_the_model_lacks_is_noted(run, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the dog\nthe 日\n")
    code, _, err = run("lm", text, tmp_path / "out.arpa", "--order", 1)
    assert code == 0 and err == "note: 1 lines have characters that the model's tokenizer has no pieces for\n"
    for nothing in ("\n \n", "\u200b\n"):  # the tokenizer leaves a space of no width out
        text.write_text(nothing)
        code, _, err = run("lm", text, tmp_path / "out.arpa")
        assert code == 2 and err == f"error: {text}: it has no text\n"


def test_options_reach_recordings_and_streams(run, files, lm, recognizer, tmp_path):
    text, path = lm
    run("lm", text, path, "--order", 3)
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("lazy\t5\nquick fox\n")
    given = ["lazy", ("quick fox", 1.0)]
    expected = recognizer.with_language_model(path, 1.5).transcribe(
        files / "a.wav", 1, phrases=[("lazy", 5.0), *given[1:]]
    )
    assert expected.text != recognizer.transcribe(files / "a.wav", 1).text
    options = ["--lm", path, "--lm-weight", 1.5, "--phrases", phrases, "--lookahead", 1]
    for flags in ([], ["--stream"]):
        code, out, _ = run("transcribe", files / "a.wav", *options, *flags)
        assert code == 0 and out == expected.text + "\n"
    manifest = tmp_path / "list.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": str(files / "a.wav"), "text": expected.text}) + "\n")
    code, out, _ = run("evaluate", manifest, *options, "--json")
    fields = json.loads(out)
    assert code == 0 and fields["wer"] == 0 and fields["lm_weight"] == 1.5 and {"lm", "phrases"} < set(fields)
    code, _, _ = run("transcribe", manifest, *options, "--output", tmp_path / "job")
    assert code == 0 and json.loads((tmp_path / "job" / "job.json").read_text())["lm_weight"] == 1.5
    assert json.loads((tmp_path / "job" / "transcripts.jsonl").read_text())["pred_text"] == expected.text


def test_a_weight_of_0_is_no_default(run, lm, checkpoint_directory):
    run("lm", *lm, "--order", 2)
    for given, weight in ((None, DEFAULT_LM_WEIGHT), (0.0, 0.0), (2.0, 2.0)):
        loaded = load(checkpoint_directory, "float32", "auto", "auto", lm=lm[1], lm_weight=given)
        assert loaded.graphs.lm_weight == weight


def test_wrong_options_are_errors_of_one_sentence(run, files, tmp_path):
    for flags, message in (
        (["--lm-weight", 0.5], "--lm-weight is the weight of a language model; name one with --lm"),
        (["--lm", "x.arpa", "--lm-weight", -1], "--lm-weight must be a number from 0 to 100, not -1.0"),
        (["--lm", tmp_path / "x.arpa"], f"{tmp_path}/x.arpa: it can't be read: No such file or directory"),
        (["--phrases", tmp_path / "x.txt"], f"{tmp_path}/x.txt: it can't be read: No such file or directory"),
    ):
        code, out, err = run("transcribe", files / "a.wav", *flags)
        assert (code, out, err) == (2, "", f"error: {message}\n")
