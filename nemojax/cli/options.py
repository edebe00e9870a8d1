"""Options that commands share, with their help texts."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from nemojax.audio import manifest
from nemojax.text.formats import FORMATS

MANIFESTS = manifest.SUFFIXES

Files = Positional[
    Annotated[
        tuple[str, ...],
        arg(
            metavar="FILE...",
            help="wav, flac, ogg or mp3 files, and m4a, webm and others where ffmpeg is installed; - for standard "
            "input; a .jsonl or .json file, also gzipped, is a manifest with one recording per line: NeMo's, or Lhotse "
            "cuts.",
            help_behavior_hint="(required)",
        ),
    ]
]
MODEL_HELP = (
    "directory of a model, written by nemojax-convert or by training; or a name: small, the model of the package, or "
    "one on the hub (owner/model or owner/model@revision), which is converted once into the user's cache."
)
SMALL_HINT = "(default: the small English model that comes with nemojax)"
Model = Annotated[Path, arg(metavar="DIRECTORY", help=MODEL_HELP, help_behavior_hint=SMALL_HINT)]
Lookahead = Annotated[
    int | None,
    arg(
        metavar="FRAMES",
        help="look-ahead of a chunk in frames of 80 ms. The released model has 0, 1, 6 and 13; more is more accurate, "
        "and text comes later.",
        help_behavior_hint="(default: the model's)",
    ),
]
Streaming = Annotated[
    bool, FlagCreatePairsOff, arg(help="process a recording chunk by chunk, and print text as it is recognized.")
]
Live = Annotated[bool, FlagCreatePairsOff, arg(help="like --stream, but paced in real time.")]
BatchSize = Annotated[int, arg(metavar="COUNT", help="recordings transcribed together, without --stream.")]
Json = Annotated[
    bool,
    FlagCreatePairsOff,
    arg(
        help="print one JSON object per recording: text, labels, and words with the times "
        "at which the model emitted them."
    ),
]
Format = Annotated[
    str | None,
    arg(
        metavar=f"{{{','.join(FORMATS)}}}",
        help="form of the results: subtitles (srt, vtt), a line for each word (ctm, tsv) or utterance (stm), or one "
        "JSON object for each recording. srt, vtt and tsv are for one recording, or for --output, beside its JSON "
        "lines.",
        help_behavior_hint="(default: txt)",
    ),
]
ConfidenceText = Annotated[
    str | None,
    arg(
        metavar="MEASURE[,FORM][,ALPHA][,WORDS]",
        help="measure of the confidences of labels and words: probability, max_prob, gibbs, tsallis or renyi; exp or "
        "lin; the exponent; and min, mean, max or prod over the labels of a word. tsallis is tsallis,exp,0.33,min.",
        help_behavior_hint="(default: the probability of a word's least probable label)",
    ),
]
EndOfUtteranceMs = Annotated[
    float | None,
    arg(
        metavar="MS",
        help="end an utterance after this time without a label, and print a line for each; with --stream --json, an "
        "object for each as it ends. The labels are the same.",
        help_behavior_hint="(default: no ends)",
    ),
]
Itn = Annotated[
    bool,
    FlagCreatePairsOff,
    arg(help="write numbers, dates and the like in digits, in English texts; needs nemojax[itn]."),
]
Vad = Annotated[
    bool,
    FlagCreatePairsOff,
    arg(help="skip long silence, by voice activity detection; times are those of the recording; needs nemojax[vad]."),
]
Raw = Annotated[
    str | None,
    arg(
        metavar="ENCODING[,RATE[,CHANNELS]]",
        help="the files, or standard input, are samples without a header: s8, u8, s16le, s24le, s32le, f32le, f64le "
        "(or be), mulaw or alaw; such as s16le,16000,1.",
        help_behavior_hint="(default: files have headers)",
    ),
]
EACH_ADVICE = (
    "a line of a manifest has one result, so --channel each is not possible here; write a line for each channel, with "
    "channel_selector"
)
ChannelText = Annotated[
    str | None,
    arg(
        metavar="CHANNEL",
        help="the channel to transcribe: an index from 0 on; several, such as 0,1, or average, for their mean; each, "
        "for every channel as a recording of its own.",
        help_behavior_hint="(default: the mean, or the loudest one while they cancel each other in it)",
    ),
]
Dtype = Annotated[
    Literal["float32", "bfloat16", "int8"],
    arg(
        help="type of the weights: bfloat16 takes half the memory of float32; int8 takes a quarter, and is the fastest "
        "on a CPU."
    ),
]
Kernels = Annotated[
    Literal["auto", "xla", "native"],
    arg(
        help="how matrix products are computed: by XLA, or on a CPU by the native C++ kernels; auto is the faster form "
        "that can run."
    ),
]
Attention = Annotated[
    Literal["auto", "plain", "fused"],
    arg(help="how attention is computed: plain, or fused into one kernel, which runs on a GPU only."),
]
Reproducible = Annotated[
    bool,
    FlagCreatePairsOff,
    arg(
        help="give the same labels, times and log-probabilities, to the last bit, at any --batch-size and with "
        "--stream; on a CPU with the native C++ kernels."
    ),
]
Output = Annotated[
    Path | None,
    arg(
        metavar="DIRECTORY",
        help="transcribe one manifest into JSON lines in this directory; an interrupted job resumes, and several "
        "processes may share it.",
        help_behavior_hint="(default: standard output)",
    ),
]
ShardText = Annotated[
    str | None,
    arg(
        metavar="INDEX/COUNT",
        help="with --output: this process's share of the manifest, such as 0/8.",
        help_behavior_hint="(default: the task's place in its Slurm step, else 0/1)",
    ),
]
LanguageModel = Annotated[
    Path | None,
    arg(
        metavar="FILE",
        help="add the scores of an n-gram language model over the model's pieces: an ARPA file, as nemojax lm writes "
        "it, a .nemo archive of NeMo, or a binary file of KenLM.",
        help_behavior_hint="(default: none)",
    ),
]
LanguageModelWeight = Annotated[
    float | None,
    arg(
        metavar="WEIGHT",
        help="the weight of the language model's scores; 0.1 to 0.4 are usual, 0 is to have no language model.",
        help_behavior_hint="(default: 0.3)",
    ),
]
PhraseFile = Annotated[
    Path | None,
    arg(
        metavar="FILE",
        help="expect the phrases of a text file, one on each line, with a boost after a tab where it has one: 0.1 to "
        "5, 1 by default.",
        help_behavior_hint="(default: none)",
    ),
]
ResetPrediction = Annotated[
    float | None,
    arg(
        metavar="SECONDS",
        help="begin the prediction network anew after this time without a label, for models that lose words after a "
        "pause; the encoder keeps its context.",
        help_behavior_hint="(default: never)",
    ),
]
Beam = Annotated[
    int | None,
    arg(
        metavar="WIDTH",
        help="search with this number of hypotheses, such as 4, in place of greedy search.",
        help_behavior_hint="(default: greedy search)",
    ),
]
NBest = Annotated[
    int | None,
    arg(
        metavar="COUNT",
        help="with --beam, and --json or --output: list this number of the best hypotheses with their scores.",
        help_behavior_hint="(default: none)",
    ),
]
