"""Tokenizer training: one command, the same bytes each time."""

import pytest

from nemojax.data import train_tokenizer
from nemojax.data.train_tokenizer import train
from nemojax.errors import ConfigError
from nemojax.text.tokenizer import Tokenizer
from tests.data.corpora import write_manifest
from tests.helpers.messages import whole

TEXTS = ["The quick brown fox, isn't it?", "jumps over the lazy dog.", "Hello there; how are you?", "It's a fine day."]


@pytest.fixture
def manifest(tmp_path):
    entries = [{"audio_filepath": f"{i}.wav", "text": text} for i, text in enumerate(TEXTS * 3)]
    return write_manifest(tmp_path / "speech.jsonl", [*entries, {"audio_filepath": "x.wav"}])


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_model_encodes_its_texts(kind):
    model = train(TEXTS, 40, kind)
    tokenizer = Tokenizer(model)
    assert model == train(TEXTS, 40, kind) and tokenizer.size == 40
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text and not tokenizer.out_of_vocabulary(text)
    assert tokenizer.piece(0) == "<unk>" and "</s>" not in [tokenizer.piece(i) for i in range(40)]
    assert tokenizer.out_of_vocabulary("日") == ["日"]


def test_byte_fallback_encodes_other_characters():
    tokenizer = Tokenizer(train(TEXTS, 320, byte_fallback=True))
    assert tokenizer.decode(tokenizer.encode("fine 日")) == "fine 日" and tokenizer.size == 320


def test_the_command(manifest, tmp_path, capsys):
    output, again = tmp_path / "tokenizer.model", tmp_path / "again.model"
    for path, size in ((output, 60), (again, 60), (tmp_path / "other.model", 55)):
        assert train_tokenizer.main([str(manifest), "--output", str(path), "--size", str(size)]) == 0
    assert output.read_bytes() == again.read_bytes() == train(TEXTS * 3, 60)
    out = capsys.readouterr().out.splitlines()
    tokenizer = Tokenizer(output.read_bytes())
    density = sum(map(len, TEXTS)) / sum(len(tokenizer.encode(text)) for text in TEXTS)
    assert out[0] == f"{output}: 60 pieces from 12 texts, {density:.2f} characters per label" and tokenizer.size == 60
    distinct = tmp_path / "distinct.model"
    arguments = ["--size", "40", "--type", "unigram", "--distinct"]
    assert train_tokenizer.main([str(manifest), "--output", str(distinct), *arguments]) == 0
    assert distinct.read_bytes() == train(TEXTS, 40, "unigram") and "from 4 texts" in capsys.readouterr().out


def test_errors(manifest, tmp_path, capsys):
    def error(*arguments):
        assert train_tokenizer.main([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err

    output = tmp_path / "tokenizer.model"
    refused = error(manifest, "--output", output, "--size", 5000)
    assert "12 texts can't make a tokenizer of 5000 pieces: Vocabulary size too high (5000)" in refused
    assert not output.exists()
    output.write_bytes(b"precious")
    assert f"error: {output} exists already; name a new file or remove it first\n" == error(
        manifest, "--output", output, "--size", 50
    )
    assert output.read_bytes() == b"precious"
    assert "can't be written: No such file" in error(manifest, "--output", tmp_path / "no" / "where", "--size", 50)
    none = tmp_path / "none.jsonl"
    assert error(none, "--output", tmp_path / "new", "--size", 50) == (
        f"error: {none}: the manifest can't be read (No such file or directory); "
        "python -m nemojax.data.validate lists everything wrong\n"
    )
    with pytest.raises(ConfigError, match=whole("there is no text to train a tokenizer on")):
        train(["", "  "])
    assert error("--output", tmp_path / "new", "--size", 50) == "error: name at least one manifest\n"
    for longest in ("a" * 65_537, "é" * 32_769):  # bytes, not characters
        with pytest.raises(ConfigError) as caught:
            train(["fine", longest])
        assert str(caught.value) == f"a text is longer than 65536 bytes; it begins {longest[:40]!r}"


def test_a_text_of_the_maximum_length_counts():
    """SentencePiece itself would leave it out."""
    tokenizer = Tokenizer(train(["fine", "éa" * 21_845 + "b"], 9))
    assert not tokenizer.out_of_vocabulary("éab")


def test_rare_characters_need_no_piece():
    texts = ["abab" * 50, "abz"]
    assert not Tokenizer(train(texts, 8)).out_of_vocabulary("z")
    assert Tokenizer(train(texts, 6, character_coverage=0.98)).out_of_vocabulary("z")


def test_byte_fallback_and_coverage_of_the_command(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        train_tokenizer, "train", lambda *arguments: made.append(arguments) or train(TEXTS, 300, "bpe", 1.0, True)
    )
    manifest = write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": "x.wav", "text": TEXTS[0]}])
    flags = ["--size", "300", "--byte-fallback", "--character-coverage", "0.99"]
    assert train_tokenizer.main([str(manifest), "--output", str(tmp_path / "a"), *flags]) == 0
    assert made == [([TEXTS[0]], 300, "bpe", 0.99, True)]
