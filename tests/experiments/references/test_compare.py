import importlib.util
import json

import numpy as np
import pytest
import soundfile

from experiments.references import agreement
from experiments.references import compare as compare_references
from experiments.references.agreement import Comparison, Difference, Hypothesis, Parting, listing, parting, table, tally
from experiments.references.compare import compare, read_recordings, streamed, whole_chunks
from experiments.references.traces import Decoding
from nemojax.errors import AudioError

BLANK, LOOKAHEAD = 3, 6


def decoding(*looks: tuple[int, int, list[float]]) -> Decoding:
    """Of evaluations (frame, labels so far, logits), three frames in all."""
    chosen = [(frame, int(np.argmax(logits))) for frame, _, logits in looks]
    spoken = [(frame, label) for frame, label in chosen if label != BLANK]
    nothing = np.zeros((0, 1), np.float32)
    return Decoding(
        tokens=np.array([label for _, label in spoken], np.int32),
        frames=np.array([frame for frame, _ in spoken], np.int32),
        looked=np.array([look[:2] for look in looks], np.int32),
        logits=np.array([look[2] for look in looks], np.float32),
        **dict.fromkeys(("projected", "outputs", "hidden", "cell", "predictions"), nothing),
    )


# label 1 at frame 0, nothing at frame 1, label 2 at frame 2
REFERENCE = decoding(
    (0, 0, [0.0, 5.0, 0.0, 4.5]),
    (0, 1, [0.0, 1.0, 2.0, 6.0]),
    (1, 1, [0.0, 1.0, 3.75, 4.0]),
    (2, 1, [0.0, 1.0, 8.0, 5.0]),
    (2, 2, [0.0, 1.0, 0.0, 7.0]),
)
THEIRS = Hypothesis("one two", (1, 2), (0, 2))


@pytest.mark.parametrize(
    "ours, expected",
    [
        (Hypothesis("two two", (2, 2), (0, 2)), Parting(0, 2, 1, 5.0)),  # another label at the first look
        (Hypothesis("", (), ()), Parting(0, BLANK, 1, 0.5)),  # blank for a label
        (Hypothesis("one two", (1, 2), (0, 1)), Parting(1, 2, BLANK, 0.25)),  # the same label a frame early
        (Hypothesis("one", (1,), (0,)), Parting(2, BLANK, 2, 3.0)),  # it ends early
        (Hypothesis("one two one", (1, 2, 1), (0, 2, 2)), Parting(2, 1, BLANK, 6.0)),  # it goes on
        (Hypothesis("one two", (1, 2), (0, 2)), None),
    ],
)
def test_where_two_hypotheses_part(ours, expected):
    assert parting(ours, THEIRS, REFERENCE, BLANK) == expected
    without_frames = THEIRS._replace(frames=None)  # those of the decoding, which has the same labels
    assert parting(ours, without_frames, REFERENCE, BLANK) == expected


def test_no_gap_where_the_references_layers_lead_elsewhere():
    ours = Hypothesis("two two", (2, 2), (0, 2))
    assert parting(ours, Hypothesis("one", (1,), None), REFERENCE, BLANK) is None
    # both have label 2 at frame 0, unlike the layers; they differ later
    assert parting(ours, Hypothesis("two", (2,), (0,)), REFERENCE, BLANK) is None


GAPS = [None, 0.9 * agreement.NEAR_TIE, 2.0]  # identical, a near-tie, another text


def comparisons(reference: str, lookahead: int) -> list[Comparison]:
    differences = [None if gap is None else Difference("a b", "a c", Parting(7, 1, 2, gap)) for gap in GAPS]
    where = reference, "offline", "stream", lookahead
    return [Comparison(*where, f"{number}.wav", 10 + number, d) for number, d in enumerate(differences)]


def test_table_and_listing():
    made = [*comparisons("NeMo", 13), *comparisons("transformers", 1)[:1]]
    assert table(made).splitlines()[2:] == [
        "| NeMo | offline | stream | 13 | 3 | 33 | 1 | 2 (1 by a near-tie) |",
        "| transformers | offline | stream | 1 | 1 | 10 | 1 | 0 |",
    ]
    assert listing(made).splitlines() == [
        "1.wav, look-ahead 13, nemojax stream against NeMo offline: "
        "label 1 for 2 at frame 7, logits 9.0e-05 apart, a near-tie",
        "    nemojax:   a b",
        "    reference: a c",
        "",
        "2.wav, look-ahead 13, nemojax stream against NeMo offline: "
        "label 1 for 2 at frame 7, logits 2.0e+00 apart, not a near-tie",
        "    nemojax:   a b",
        "    reference: a c",
    ]


def test_a_gap_that_is_not_known_is_no_near_tie():
    difference = Difference("a b", "a c", None)
    assert not difference.near_tie
    assert "not known" in listing([Comparison("NeMo", "stream", "stream", 1, "0.wav", 2, difference)])


def test_rows_are_json():
    [row] = json.loads(json.dumps(tally(comparisons("NeMo", 13))))
    assert (row["recordings"], row["labels"], row["identical"], row["near_ties"]) == (3, 33, 1, 1)
    assert [d["recording"] for d in row["differences"]] == ["1.wav", "2.wav"]
    assert row["differences"][1]["parting"] == {"frame": 7, "ours": 1, "theirs": 2, "gap": 2.0}


class Itself:
    """A reference that is nemojax, except for the labels of one recording."""

    name, blank = "itself", 64

    def __init__(self, recognizer, wrong: np.ndarray, streams: bool = True):
        self._recognizer, self._wrong, self._streams = recognizer, wrong, streams

    def shown(self, text):
        return text.upper()

    def offline(self, samples, lookahead):
        hypothesis = streamed(self._recognizer, samples, lookahead)
        if samples is self._wrong:
            hypothesis = hypothesis._replace(tokens=hypothesis.tokens[:-1])
        return hypothesis._replace(text=hypothesis.text.upper()), lambda: REFERENCE

    def stream(self, samples, lookahead):
        assert (len(samples) + 1080) % (1280 * (lookahead + 1)) == 0
        return self.offline(samples, lookahead) if self._streams else None


def test_what_is_compared(recognizer, speech):
    x = np.asarray(speech)
    recordings = [("short", x[:9000]), ("long", x[9000:60_000])]
    wrong, done = recordings[1][1], []
    found = list(compare(recognizer, [Itself(recognizer, wrong)], recordings, LOOKAHEAD, lambda: done.append(1)))
    assert [(c.recording, c.mode, c.nemojax) for c in found] == [
        (name, *modes)
        for name in ("short", "long")
        for modes in [("offline", "offline"), ("offline", "stream"), ("stream", "stream")]
    ]
    assert [c.difference is None for c in found] == [True, True, True, False, False, True]
    assert len(done) == 2 and found[5].labels > 3
    without = compare(recognizer, [Itself(recognizer, wrong, streams=False)], recordings, LOOKAHEAD)
    assert [c.mode for c in without] == ["offline"] * 4


@pytest.mark.parametrize("lookahead", [0, 1, 6, 13])
@pytest.mark.parametrize("samples", [160, 16_000, 16_840, 16_841])
def test_silence_to_the_end_of_a_chunk(tiny_config, lookahead, samples):
    padded = whole_chunks(np.ones(samples, np.float32), tiny_config, lookahead)
    assert padded.sum() == samples and len(padded) - samples < 1280 * (lookahead + 1)
    # the references' chunks end with log-mel frame 8 R, and each other 8 (R + 1) later
    assert (tiny_config.log_mel_frames(len(padded)) - 8 * lookahead - 1) % (8 * (lookahead + 1)) == 0


def test_recordings_that_can_not_be_compared_are_reported(tmp_path, tiny_config):
    for name, samples in ("good", 16_000), ("short", 100):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(samples, np.float32), 16_000)
    names = ["good.wav", "short.wav", "absent.wav"]
    manifest = tmp_path / "some.jsonl"
    manifest.write_text("".join(json.dumps({"audio_filepath": name}) + "\n" for name in names) + "{\n")
    errors: list[AudioError] = []
    found = read_recordings(manifest, None, tiny_config, errors.append)
    assert [(name, len(samples)) for name, samples in found] == [("good.wav", 16_000)]
    assert [part in str(error) for part, error in zip(["short", "absent", "line 4"], errors, strict=True)] == [True] * 3


def test_without_the_references_the_extra_is_named(monkeypatch, capsys, checkpoint_directory, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nemo" else find(name))
    command = [str(checkpoint_directory), "any.jsonl", "--output", str(tmp_path / "rows.jsonl")]
    assert compare_references.main(command) == 2
    error = capsys.readouterr().err
    assert "nemo" in error and "nemojax[parity]" in error and "Traceback" not in error
    assert not (tmp_path / "rows.jsonl").exists()


def test_settings_that_are_wrong(capsys, tmp_path):
    assert compare_references.main([str(tmp_path), "any.jsonl", "--limit", "0"]) == 2
    assert "--limit must be at least 1" in capsys.readouterr().err
