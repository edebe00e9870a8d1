"""`nemojax warm`."""

import sys
import time
from typing import Annotated, Any

from tqdm import tqdm
from tyro.conf import arg

from nemojax import compilation
from nemojax.bundled import SMALL
from nemojax.checks import check_count
from nemojax.cli.model import check_beam, load
from nemojax.cli.options import (
    Attention,
    Beam,
    ConfidenceText,
    Dtype,
    Kernels,
    LanguageModel,
    LanguageModelWeight,
    Model,
    PhraseFile,
    Reproducible,
    ResetPrediction,
)
from nemojax.errors import ConfigError

Lookaheads = Annotated[
    tuple[int, ...],
    arg(
        metavar="FRAMES...",
        help="look-aheads in frames of 80 ms, each of which has steps of its own.",
        help_behavior_hint="(default: the model's)",
    ),
]
WarmBatchSize = Annotated[
    int, arg(metavar="COUNT", help="the --batch-size of `nemojax transcribe`; 0 for live streams alone.")
]
Streams = Annotated[
    tuple[int, ...],
    arg(
        metavar="COUNT...",
        help="the `slots` of an Engine: the numbers of live streams that a step may have.",
        help_behavior_hint="(default: no engine)",
    ),
]


def warm(
    model: Model = SMALL,
    lookahead: Lookaheads = (),
    batch_size: WarmBatchSize = 8,
    streams: Streams = (),
    dtype: Dtype = "float32",
    kernels: Kernels = "auto",
    attention: Attention = "auto",
    reset_prediction_after_s: ResetPrediction = None,
    reproducible: Reproducible = False,
    beam: Beam = None,
    confidence: ConfidenceText = None,
    lm: LanguageModel = None,
    lm_weight: LanguageModelWeight = None,
    phrases: PhraseFile = None,
) -> int:
    """Compile ahead of time, on this machine or in an image, what transcribing and streaming will need."""
    check_count("--batch-size", batch_size, 0)
    for count in streams:
        check_count("each of --streams", count)
    check_beam(beam, None, reset_prediction_after_s)
    search = {"beam": beam, "confidence": confidence, "lm": lm, "lm_weight": lm_weight, "phrases": phrases}
    chosen: dict[str, Any] = {name: value for name, value in search.items() if value is not None}
    begun_s = time.monotonic()
    with compilation.Watch() as watch:
        recognizer = load(model, dtype, kernels, attention, reset_prediction_after_s, reproducible, **chosen)
        directory = compilation.directory()
        if directory is None:
            raise ConfigError(
                f"nothing that is compiled is kept: unset ${compilation.SWITCH}, or let it name a directory, and leave "
                "jax's compilation cache enabled"
            )
        from nemojax.warm import warm as compile_all

        with tqdm(unit=" steps", desc="compiling", disable=None, leave=False, file=sys.stderr) as bar:

            def progress(done: int, count: int) -> None:
                bar.total = count
                bar.update(done - bar.n)

            compile_all(recognizer, lookahead, batch_size, streams, progress)
    seconds = time.monotonic() - begun_s
    print(f"{len(watch.compiled)} programs compiled, {len(watch.read)} found, in {seconds:.0f} s; kept in {directory}")
    return 0
