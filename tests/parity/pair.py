"""One set of weights in NeMo, in transformers and in nemojax, and what each makes of the same recordings."""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from convert.nemo import checkpoint as nemo
from experiments.references import SIZES, nemo_model, transformers_model
from experiments.references.nemo_model import Nemo
from experiments.references.sound import glides
from experiments.references.traces import Chunk, Decoding, Trace
from experiments.references.transformers_model import Transformers
from nemojax.model.parameters import fill
from tests.helpers.tracing import Run, Traced
from tests.parity.audio import boundaries, real_speech

ROWS = 10  # recordings side by side in nemojax


class Pair:
    """The models of one size.

    Everything is computed once, for several tests. The references get each recording alone, nemojax gets all of them
    side by side.
    """

    def __init__(self, name: str, seed: int, directory: Path):
        self.name, self.seed, self.archive = name, seed, directory / f"{name}.nemo"
        rng = np.random.default_rng(seed)
        # longer than a left context and a chunk, and short
        long = real_speech(rng, "dev/librispeech_clean", 6.8, 9.0) or {"8 s of glides": glides(rng, 128_000)}
        short = real_speech(rng, str(rng.choice(["dev/ljspeech", "dev/grid", "dev/fsdd"])), 0.0, 3.5)
        self.speech = long | short
        self._others = {
            "2.5 s of glides": glides(rng, 40_000),
            "0.05 s": glides(rng, 800),
            "one log-mel frame": glides(rng, 160),
            "half a second of silence": np.zeros(8_000, np.float32),
        }
        recordings = [*self.speech.values(), *self._others.values()][:3]
        nemo_model.build(SIZES[name], seed, directory, recordings).save_to(str(self.archive))
        self.nemo = Nemo(nemo_model.load(self.archive))
        model = transformers_model.build(SIZES[name], self.nemo.model)
        self.transformers = Transformers(model, transformers_model.features(SIZES[name]))
        self.source = nemo.read(self.archive)
        self.nemojax = Traced(jax.tree.map(jnp.asarray, fill(self.source.config, self.source.arrays)))

    @cache  # noqa: B019
    def recordings(self, lookahead: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed + lookahead)
        ends = {name: glides(rng, samples) for name, samples in boundaries(lookahead).items()}
        return self.speech | self._others | ends

    @cache  # noqa: B019
    def nemo_offline(self, lookahead: int) -> dict[str, Trace]:
        return {name: self.nemo.offline(x, lookahead) for name, x in self.recordings(lookahead).items()}

    @cache  # noqa: B019
    def nemo_stream(self, lookahead: int) -> dict[str, list[Chunk]]:
        return {name: self.nemo.stream(t["log_mel"], lookahead) for name, t in self.nemo_offline(lookahead).items()}

    @cache  # noqa: B019
    def transformers_offline(self, lookahead: int) -> dict[str, Trace]:
        return {name: self.transformers.offline(x, lookahead) for name, x in self.recordings(lookahead).items()}

    @cache  # noqa: B019
    def transformers_stream(self, lookahead: int) -> dict[str, list[Chunk]]:
        traces = self.transformers_offline(lookahead)
        return {name: self.transformers.stream(trace["log_mel"], lookahead) for name, trace in traces.items()}

    @cache  # noqa: B019
    def decoding(self, lookahead: int) -> dict[str, Decoding]:
        """The double loop over NeMo's offline encoding: what all tokens are compared with."""
        traces = self.nemo_offline(lookahead)
        return {name: self.nemo.double_loop(trace["encoder"]) for name, trace in traces.items()}

    @cache  # noqa: B019
    def nemojax_offline(self, lookahead: int) -> dict[str, Run]:
        """In segments of one left context."""
        config = self.nemojax.config
        return self._nemojax(lookahead, config.encoder.left_context_frames // config.chunk_frames(lookahead), False)

    @cache  # noqa: B019
    def nemojax_stream(self, lookahead: int) -> dict[str, Run]:
        """Chunk by chunk, with the caches after each."""
        return self._nemojax(lookahead, 1, True)

    def _nemojax(self, lookahead: int, chunks: int, caches: bool) -> dict[str, Run]:
        recordings = self.recordings(lookahead)
        runs = self.nemojax.run([*recordings.values()], lookahead, chunks, caches, batch=ROWS)
        return dict(zip(recordings, runs, strict=True))
