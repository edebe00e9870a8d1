"""The validation command: finds everything wrong, where it is, and nothing else."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nemojax.audio.source import Recording
from nemojax.config import ModelConfig
from nemojax.data import validate
from nemojax.data.corpus import Filters
from nemojax.data.validate import Finding, Probe, findings
from nemojax.text.tokenizer import Tokenizer
from tests.audio.test_manifest import tarred
from tests.data.corpora import write_manifest, write_speech
from tests.helpers.sounds import encoded, wave

FILES = {"a.wav": 32_000, "b.wav": 32_000, "c.wav": 32_000, "tiny.wav": 800, "long.wav": 400_000}


@pytest.fixture
def directory(tmp_path):
    for index, (name, frames) in enumerate(FILES.items()):
        (tmp_path / name).write_bytes(encoded(wave(frames, seed=index), 16_000))
    (tmp_path / "zero.wav").write_bytes(encoded(np.zeros(16_000, np.float32), 16_000))
    (tmp_path / "late.wav").write_bytes(encoded(wave(32_000) * (np.arange(32_000) < 10), 16_000))
    (tmp_path / "cut.wav").write_bytes(encoded(wave(16_000), 16_000)[:-2000])
    flac = bytearray(encoded(wave(64_000), 16_000, "flac"))
    flac[len(flac) // 2 :] = bytes(len(flac) - len(flac) // 2)
    (tmp_path / "damaged.flac").write_bytes(flac)
    return tmp_path


def entry(name, text="a fine day", **more):
    return {"audio_filepath": name, "text": text, **more}


def found(manifests, tokenizer=None, **options):
    return list(findings(manifests, tokenizer, ModelConfig(), **options))


ENTRIES = [
    entry("a.wav", duration=2.0),
    entry("b.wav", duration=2.0, text="é day, é ünder"),
    entry("b.wav", duration=2.0),
    entry("no.wav", duration=2.0),
    entry("cut.wav"),
    entry("c.wav", duration=1.5),
    entry("tiny.wav", duration=0.05),
    entry("long.wav", duration=25.0, text="one or two " * 60),
    {"audio_filepath": "zero.wav", "duration": 1.0},
    "{",
    entry("zero.wav", duration=1.0, offset=0.5, text="  "),
    entry("damaged.flac", duration=4.0),
    entry("gone.wav", duration=30.0),
    entry("late.wav"),
]
EXPECTED = [
    (2, "out of vocabulary", "the tokenizer has no piece for 'é', 'ü'"),
    (3, "duplicate", "the same audio as in {path}:2"),
    (4, "missing file", "there is no such file"),
    (5, "unreadable", "truncated: its header announces 32000 bytes of samples, and it ends after 30000"),
    (6, "duration", "the manifest says 1.50 s, the file lasts 2.00 s"),
    (7, "too short", "it lasts 0.05 s, less than 0.1 s"),
    (7, "too many labels", "its text has 5 labels for 2 frames (0.05 s)"),
    (8, "too long", "it lasts 25.00 s, more than 20 s"),
    (9, "no text", "it has no text"),
    (10, "manifest", "it is not JSON ("),
    (11, "duration", "the manifest says 1.00 s from 0.50 s on, the file lasts 1.00 s"),
    (11, "no text", "its text is empty"),
    (13, "missing file", "there is no such file"),
    (13, "too long", "it lasts 30.00 s, more than 20 s"),
]


@pytest.fixture
def bad(directory):
    path = directory / "bad.jsonl"
    path.write_text("\n".join(e if isinstance(e, str) else json.dumps(e) for e in ENTRIES))
    return path


def assert_found(findings, expected, path):
    assert [(f.line, f.kind) for f in findings] == [(line, kind) for line, kind, _ in expected]
    for finding, (_, _, message) in zip(findings, expected, strict=True):
        begins, whole = finding.message.startswith(message), finding.message == message.format(path=path)
        assert finding.manifest == str(path) and (begins if message.endswith("(") else whole), finding


def test_everything_wrong_is_listed(bad, pieces):
    assert_found(found([bad], Tokenizer(pieces)), EXPECTED, bad)


def test_decoding_finds_what_headers_do_not_show(bad, pieces, monkeypatch):
    monkeypatch.setattr(validate, "BLOCK_SAMPLES", 4000)  # late.wav has silent blocks after its sound
    more = found([bad], Tokenizer(pieces), decode=True)
    kinds = Counter((f.line, f.kind) for f in more) - Counter((line, kind) for line, kind, _ in EXPECTED)
    assert kinds == Counter({(9, "silent"): 1, (11, "silent"): 1, (12, "unreadable"): 1})


@pytest.mark.slow
def test_workers_find_the_same(bad, pieces):
    assert found([bad], Tokenizer(pieces), decode=True, workers=2) == found([bad], Tokenizer(pieces), decode=True)


def test_without_a_tokenizer_and_with_other_filters(bad):
    kinds = Counter(f.kind for f in found([bad], filters=Filters(min_s=0.01, max_s=30.0, exclude="^one")))
    assert kinds["too short"] == kinds["too long"] == kinds["out of vocabulary"] == kinds["too many labels"] == 0
    assert kinds["excluded"] == 1


def test_good_manifests_have_nothing_wrong(directory, pieces):
    samples = wave(48_000)
    tarred(directory / "t.tar", {name: encoded(samples, 16_000, "flac") for name in ("x.flac", "y.flac", "z.flac")})
    in_tar = [entry("x.flac", duration=3.004), entry("y.flac", duration=1.0), entry("y.flac", duration=1.0, offset=1.0)]
    in_tar.append(entry("z.flac", duration=1.0, offset=1.0))
    manifests = [
        write_speech(directory, "speech", ["one or two", "she said"]),
        write_manifest(directory / "t.jsonl", in_tar),
    ]
    assert found(manifests, Tokenizer(pieces), decode=True) == []
    again = found([manifests[0], manifests[0]])
    assert [(f.kind, f.message) for f in again] == [
        ("duplicate", f"the same audio as in {manifests[0]}:{n}") for n in (1, 2)
    ]


def test_each_duplicate_names_the_first_of_its_kind(directory):
    path = write_manifest(directory / "thrice.jsonl", [entry("a.wav", duration=2.0)] * 3)
    assert [(f.line, f.message) for f in found([path])] == [(n, f"the same audio as in {path}:1") for n in (2, 3)]


@pytest.mark.parametrize(
    "named_s,begin_s,lasts_s,only_use,seconds,kinds",
    [
        (2.0, 0.0, 2.25, True, 2.0, []),  # within a tolerance of a quarter second
        (2.0, 0.0, 2.3125, True, 2.0, ["duration"]),
        (2.0, 0.0, 2.3125, False, 2.0, []),  # another line has the rest
        (2.0, 0.5, 9.0, True, 2.0, []),  # a part
        (2.0, 0.0, 1.75, True, 2.0, []),
        (2.0, 0.0, 1.6875, False, 2.0, ["duration"]),
        (2.0, 0.5, 2.25, False, 2.0, []),
        (2.0, 0.5, 2.1875, True, 2.0, ["duration"]),
        (None, 0.5, 2.25, True, 1.75, []),
        (None, 3.0, 2.25, True, 0.0, ["too short"]),
        (30.0, 0.0, 30.0, True, 30.0, ["too long"]),
    ],
)
def test_durations_of_a_file_and_its_manifest(named_s, begin_s, lasts_s, only_use, seconds, kinds):
    recording = Recording(Path("a.wav"), "a.wav", begin_s, named_s)
    for silent in (False, True):
        probed = Probe(lasts_s, silent=silent)
        found, problems = validate._audio_problems(recording, probed, only_use, 0.25, Filters())
        durations = [kind for kind in kinds if kind == "duration"]
        expected = [*durations, *(["silent"] if silent else []), *(kind for kind in kinds if kind != "duration")]
        assert found == seconds and [problem.kind for problem in problems] == expected


def test_probes(directory):
    """By the header of the whole file; by decoding, to the end of the part."""
    part = Recording(directory / "late.wav", "late.wav", 1.0, 0.5)
    assert validate.probe(part, decode=False) == Probe(2.0) and validate.probe(part, decode=True) == Probe(
        2.0, silent=True
    )
    (directory / "none.wav").write_bytes(encoded(np.zeros(0, np.float32), 16_000))
    none = Recording(directory / "none.wav", "none.wav")
    assert validate.probe(none, decode=False) == Probe(0.0)
    assert validate.probe(none, decode=True) == Probe(0.0, "it holds no samples")
    gone = Recording(directory / "gone.wav", "gone.wav")
    assert validate.probe(gone, decode=True) == Probe(fault="there is no such file")


def test_a_table_is_aligned():
    found = [Finding("a.jsonl", 7, "b.wav", "silent", "all zero"), Finding("long.jsonl", 10, "c\n", "no text", "x")]
    assert validate.table(found) == ("a.jsonl:7      silent   b.wav  all zero\nlong.jsonl:10  no text  c\\n    x")
    assert validate.table([]) == ""


def test_a_manifest_that_can_not_be_read(directory):
    (finding,) = found([directory / "none.jsonl"])
    assert finding.line == 0 and finding.kind == "manifest" and finding.message.startswith("the manifest can't be read")


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = validate.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_command_prints_a_table(run, bad, directory, pieces):
    (directory / "pieces.model").write_bytes(pieces)
    code, out, err = run(bad, "--tokenizer", directory / "pieces.model")
    lines = out.splitlines()
    assert code == 1 and len(lines) == len(EXPECTED)
    assert len({line.index(kind) for line, (_, kind, _) in zip(lines, EXPECTED, strict=True)}) == 1  # aligned
    assert lines[2].split() == [f"{bad}:4", "missing", "file", "no.wav", "there", "is", "no", "such", "file"]
    assert err == (
        "14 entries, 11 with something wrong: 2 missing file, 2 duration, 2 too long, 2 no text, 1 out of vocabulary, "
        "1 duplicate, 1 unreadable, 1 too short, 1 too many labels, 1 manifest\n"
    )


def test_the_command_prints_json_lines(run, bad, checkpoint_directory):
    code, out, _ = run(bad, "--model", checkpoint_directory, "--json", "--max-s", "30")
    lines = [json.loads(line) for line in out.splitlines()]
    assert not any(
        line["kind"] == "out of vocabulary"
        for line in map(
            json.loads, run(bad, "--model", checkpoint_directory, "--json", "--keep-unspelled")[1].splitlines()
        )
    )  # the flag's former name
    expected = [(line, kind) for line, kind, _ in EXPECTED if kind != "too long"]
    assert code == 1 and [(line["line"], line["kind"]) for line in lines] == expected
    assert lines[0] == {
        "manifest": str(bad),
        "line": 2,
        "name": "b.wav",
        "kind": "out of vocabulary",
        "message": "the tokenizer has no piece for 'é', 'ü'",
    }


def test_the_command_finds_nothing_wrong(run, directory):
    code, out, err = run(write_speech(directory, "speech", ["one or two"]))
    assert code == 0 and not out
    assert "vocabulary and labels are not checked" in err and "1 entries, 0 with something wrong\n" in err


def test_wrong_arguments(run, bad, directory):
    assert run(bad, "--tokenizer", directory / "none.model")[::2] == (
        2,
        f"error: {directory / 'none.model'} can't be read: No such file or directory\n",
    )
    assert run(bad, "--tokenizer", bad)[0] == run(bad, "--model", directory)[0] == 2
    assert run()[::2] == (2, "error: name at least one manifest\n")
    both = run(bad, "--tokenizer", bad, "--model", directory)
    assert both[::2] == (2, "error: give --model or --tokenizer, not both\n")


def test_every_flag_reaches_the_checks(run, bad, monkeypatch):
    given = []

    def findings(*arguments, progress, **named):
        given.append((arguments, named, list(progress([1, 2, 3]))))
        return []

    monkeypatch.setattr(validate, "findings", findings)
    code, out, err = run(bad, "--decode", "--tolerance-s", "0.5", "--workers", "3", "--min-s", "2", "--exclude", "x")
    assert (code, out) == (0, "") and err.endswith("\n3 entries, 0 with something wrong\n")
    filters = Filters(min_s=2.0, exclude="x")
    named = {"decode": True, "tolerance_s": 0.5, "workers": 3}
    assert given == [(((bad,), None, ModelConfig(), filters), named, [1, 2, 3])]
    run(bad)
    assert given[1][0][3] == Filters() and given[1][1] == {"decode": False, "tolerance_s": 0.05, "workers": 0}


def test_names_that_can_not_be_printed_as_they_are(tmp_path, capsys):
    manifest = write_manifest(tmp_path / "m.jsonl", [])
    manifest.write_bytes(b'{"audio_filepath": "M\xe4dchen.wav"}\n{"audio_filepath": "two\\nlines.wav"}\n')
    assert validate.main([str(manifest)]) == 1
    out = capsys.readouterr().out
    assert r"M\udce4dchen.wav" in out and r"two\nlines.wav" in out
    assert validate.main([str(manifest), "--json"]) == 1
    names = {json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()}
    assert names == {"M\udce4dchen.wav", "two\nlines.wav"}
