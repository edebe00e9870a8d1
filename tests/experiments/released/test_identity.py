"""The files of a model against those of a release."""

import hashlib
import json

import pytest

from experiments.released.identity import check_converted, check_files, check_parameters
from experiments.released.known import DIFFERENT, EQUAL, FILES, PARAMETERS, RELEASES, UNKNOWN, File, Release
from nemojax.errors import ConfigError

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
RELEASE = Release("it", {"a.nemo": File(7, DIGEST[:8]), "config.json": File(2)}, 5, {})


def verdicts(checks):
    return [(check.what, check.verdict) for check in checks]


def test_what_is_known_fits_together():
    header = 8 + 74_136
    assert (FILES["model.safetensors"].size_bytes - header) / 4 == PARAMETERS
    assert FILES["nemotron-speech-streaming-en-0.6b.nemo"].size_bytes % 10_240 == 0
    march = RELEASES["march"].wer
    means = [round(sum(figures[chunk] for figures in march.values()) / len(march), 2) for chunk in (1120, 560, 160, 80)]
    assert means == [6.93, 7.07, 7.67, 8.43]  # as published


def test_an_archive_by_any_name(tmp_path):
    archive = tmp_path / "renamed.nemo"
    archive.write_bytes(CONTENT)
    checks = check_files(archive, RELEASE)
    assert verdicts(checks) == [("renamed.nemo, bytes", EQUAL), ("renamed.nemo, SHA-256", EQUAL)]
    assert checks[1].found == f"{DIGEST[:16]}…" and checks[1].expected == f"{DIGEST[:8]}…"
    archive.write_bytes(b"others")
    assert [verdict for _, verdict in verdicts(check_files(archive, RELEASE))] == [DIFFERENT, DIFFERENT]
    assert verdicts(check_files(archive, RELEASES["january"])) == [("renamed.nemo, bytes", UNKNOWN)]


def test_a_hugging_face_directory(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "other.txt").write_text("")
    assert verdicts(check_files(tmp_path, RELEASE)) == [("config.json, bytes", EQUAL)]
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match="is neither a NeMo archive, nor a Hugging Face directory"):
        check_files(tmp_path, RELEASE)


def native(directory, origin):
    (directory / "weights").mkdir(parents=True)
    (directory / "origin.json").write_text(json.dumps(origin))
    return directory


def test_a_native_checkpoint_names_the_files_that_it_was_converted_from(tmp_path):
    converted = native(tmp_path / "native", {"files": {"x.nemo": DIGEST, "config.json": "ab", "more.bin": "cd"}})
    assert verdicts(check_files(converted, RELEASE)) == [
        ("x.nemo, SHA-256", EQUAL),
        ("config.json, SHA-256", UNKNOWN),
        ("more.bin, SHA-256", UNKNOWN),
    ]
    trained = native(tmp_path / "trained", {"step": 3})
    assert [check.verdict for check in check_files(trained, RELEASE)] == [UNKNOWN]


def test_a_conversion_of_other_files_is_not_used_again(tmp_path):
    converted = native(tmp_path / "native", {"files": {"x.nemo": DIGEST}})
    (tmp_path / "x.nemo").write_bytes(CONTENT)
    check_converted(converted, tmp_path / "x.nemo")
    (tmp_path / "x.nemo").write_bytes(b"others")
    with pytest.raises(ConfigError, match="was converted from another model than"):
        check_converted(converted, tmp_path / "x.nemo")


def test_the_number_of_parameters():
    assert check_parameters(5, RELEASE).verdict == EQUAL and check_parameters(6, RELEASE).verdict == DIFFERENT
