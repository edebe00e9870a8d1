"""What is known of the released models: sizes and checksums of their files, published accuracy and speed.

Nobody has read the files here. Sizes and checksums are those of public manifests of ports, which agree with each other.
Of a checksum, the first digits may be all that is known. The word error rates are those of NVIDIA's model card, on sets
of the Open ASR Leaderboard with Whisper's normalizer, without punctuation and case.
"""

from typing import NamedTuple

ENGLISH = "nvidia/nemotron-speech-streaming-en-0.6b"


EQUAL, DIFFERENT, UNKNOWN = "equal", "different", "not known"


class Check(NamedTuple):
    """A fact about the model, what the release has, and whether they are equal."""

    what: str
    found: str
    expected: str
    verdict: str


class File(NamedTuple):
    """A file of a release; `sha256` is the known beginning of the checksum, "" where none is known."""

    size_bytes: int
    sha256: str = ""


class Release(NamedTuple):
    """A release: its files by name, the number of its parameters, and its WER in percent by set and chunk in ms."""

    title: str
    files: dict[str, File]
    parameters: int
    wer: dict[str, dict[int, float]]


# sets of the Open ASR Leaderboard, and the number of utterances of those whose size is known
SETS = {
    "ami": "AMI",
    "earnings22": "Earnings22",
    "gigaspeech": "GigaSpeech",
    "librispeech-clean": "LibriSpeech test-clean",
    "librispeech-other": "LibriSpeech test-other",
    "spgispeech": "SPGISpeech",
    "tedlium": "TED-LIUM",
    "voxpopuli": "VoxPopuli",
}
SIZES = {"librispeech-clean": 2620, "librispeech-other": 2939}


def _by_set(figures: dict[int, tuple[float, ...]]) -> dict[str, dict[int, float]]:
    return {name: {chunk: row[index] for chunk, row in figures.items()} for index, name in enumerate(SETS)}


# in the order of SETS, by the chunk in ms
MARCH: dict[int, tuple[float, ...]] = {
    1120: (11.73, 12.52, 9.66, 2.32, 4.84, 2.97, 3.50, 7.91),
    560: (11.88, 12.82, 9.78, 2.46, 5.07, 3.03, 3.54, 8.00),
    160: (14.71, 13.01, 10.34, 2.56, 5.57, 3.25, 3.77, 8.18),
    80: (18.29, 13.16, 11.17, 2.80, 6.01, 3.43, 4.10, 8.46),
}
JANUARY: dict[int, tuple[float, ...]] = {1120: (11.58, 12.48, 11.45, 2.31, 4.75, 2.62, 4.50, 7.57)}
FILES = {
    "config.json": File(1_284, "dffe850bc79ad2b0"),
    "generation_config.json": File(192, "6ce531b39df8046c"),
    "processor_config.json": File(525, "cf35efc9abdd0963"),
    "tokenizer.json": File(400_216, "60dc0361"),
    "tokenizer_config.json": File(270, "0665bee664daf39a"),
    "model.safetensors": File(2_472_413_604, "bddd8a73"),
    "nemotron-speech-streaming-en-0.6b.nemo": File(2_473_041_920, "28363805"),
}
PARAMETERS = 618_084_865  # model.safetensors without its header, by 4 bytes
RELEASES = {
    "march": Release(f"{ENGLISH}, March 2026", FILES, PARAMETERS, _by_set(MARCH)),
    "january": Release(f"{ENGLISH}, January 2026", {}, PARAMETERS, _by_set(JANUARY)),
}

# Published speeds, of other conditions than those measured here: what, the figure, and where it was published. None is
# an RTFx of this model or a delay of its words.
SPEEDS = (
    ("live streams of one H100, chunks of 320 ms", "560", "NVIDIA's article on cache-aware streaming"),
    ("median delay of 127 WebSocket clients, chunks of 560 ms, H100", "182 ms", "the same article (Modal)"),
    ("median time to the final transcript, locally", "24 ms", "the same article (Daily)"),
    ("step of one stream in NeMo, chunks of 160 ms and 1.12 s, RTX 4090", "20.7 and 21.2 ms", "NeMo-Speech.cpp"),
    ("the same in NeMo-Speech.cpp, weights of 8 bits", "2.3 and 3.4 ms", "NeMo-Speech.cpp"),
    ("the same on 8 threads of an i7-11700K", "27.0 and 42.7 ms", "NeMo-Speech.cpp"),
    ("offline RTFx of NeMo, Parakeet TDT 0.6B", "6,038 to 6,098", "Open ASR Leaderboard, September 2026"),
)
