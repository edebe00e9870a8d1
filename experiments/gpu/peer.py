"""transformers in bfloat16 on the same card, in a process of its own: its encoder, step by step and offline.

    python -m experiments.gpu.peer STREAMS LOOKAHEADS OFFLINE SECONDS [--dry]

Rows are JSON lines on standard output. The weights are random, which changes no time; inputs are log-mel frames that
lie on the card already, and the search for labels is left out.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.gpu.points import Sizes
from experiments.gpu.rows import first_line, is_out_of_memory

LEFT_FRAMES = 70
SECONDS, FEWEST, MOST = 0.6, 6, 40
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def run(sizes: Sizes, dry: bool, timeout_s: float) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of a process that measures the peer, and what went wrong, if anything did."""
    numbers = lambda values: ",".join(map(str, values))
    arguments = [numbers(sizes.peer_streams), numbers(sizes.peer_lookaheads), str(sizes.peer_offline)]
    command = [sys.executable, "-m", "experiments.gpu.peer", *arguments, str(sizes.offline_s), *["--dry"][: int(dry)]]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        out, errors = process.communicate(timeout=timeout_s)
        wrong = None if process.returncode == 0 else (errors.strip().splitlines() or ["it ended early"])[-1][:300]
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        wrong = f"it took longer than {timeout_s:.0f} s"
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")], wrong


def encoder(dry: bool) -> Any:
    import torch
    from transformers import NemotronAsrStreamingEncoder, NemotronAsrStreamingEncoderConfig

    config = NemotronAsrStreamingEncoderConfig(
        num_mel_bins=128,
        attention_bias=False,
        convolution_bias=False,
        scale_input=False,
        sliding_window=LEFT_FRAMES + 1,
        **(TINY if dry else {}),
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = NemotronAsrStreamingEncoder._from_config(config, attn_implementation="sdpa", dtype=torch.bfloat16)
    return model.eval().to(device)


def timed_ms(call: Callable[[], Any], synchronize: Callable[[], Any]) -> dict[str, Any]:
    seconds: list[float] = []
    while len(seconds) < FEWEST or (sum(seconds) < SECONDS and len(seconds) < MOST):
        begin = time.perf_counter()
        call()
        synchronize()
        seconds.append(time.perf_counter() - begin)
    p50, p95 = np.percentile(seconds, (50, 95))
    return {"steps": len(seconds), "p50_ms": round(1000 * float(p50), 3), "p95_ms": round(1000 * float(p95), 3)}


def stream(model: Any, streams: int, lookahead: int, synchronize: Callable[[], Any]) -> dict[str, Any]:
    """The time of an encoder's step when its caches are full."""
    import torch

    device, caches = next(model.parameters()).device, {"past_key_values": None, "padding_cache": None}
    draw = lambda frames: torch.randn(streams, frames, 128, device=device, dtype=torch.bfloat16) * 4 - 11
    chunk = draw(8 * (lookahead + 1))

    def step(frames: Any) -> None:
        output = model(frames, **caches, use_cache=True, num_lookahead_tokens=lookahead)
        caches.update(past_key_values=output.past_key_values, padding_cache=output.padding_cache)

    step(draw(8 * lookahead + 1))
    for _ in range(LEFT_FRAMES // (lookahead + 1) + 1):
        step(chunk)
    synchronize()
    return timed_ms(lambda: step(chunk), synchronize)


def offline(model: Any, batch: int, seconds: float, lookahead: int, synchronize: Callable[[], Any]) -> dict[str, Any]:
    import torch

    device, frames = next(model.parameters()).device, round(100 * seconds)
    log_mel = torch.randn(batch, frames, 128, device=device, dtype=torch.bfloat16) * 4 - 11
    mask = torch.ones(batch, frames, device=device, dtype=torch.bool)
    call = lambda: model(log_mel, attention_mask=mask, num_lookahead_tokens=lookahead)
    call()
    synchronize()
    row = timed_ms(call, synchronize)
    return {**row, "rtfx": round(batch * seconds / row["p50_ms"] * 1000, 1)}


def main(arguments: Sequence[str]) -> int:
    import torch
    import transformers

    streams, lookaheads = ([int(value) for value in text.split(",")] for text in arguments[:2])
    batch, seconds = int(arguments[2]), float(arguments[3])
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    facts = {
        "peer": "transformers",
        "peer_versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    with torch.inference_mode():
        model = encoder("--dry" in arguments)
        jobs: list[tuple[dict[str, Any], Callable[[], dict[str, Any]]]] = [
            ({"part": "encoder step", "streams": n, "lookahead": r}, lambda n=n, r=r: stream(model, n, r, synchronize))
            for r in lookaheads
            for n in streams
        ]
        last = lookaheads[-1]
        jobs.append(
            (
                {"part": "encoder offline", "batch": batch, "seconds": seconds, "lookahead": last},
                lambda: offline(model, batch, seconds, last, synchronize),
            )
        )
        for row, job in jobs:
            try:
                row = {**facts, **row, **job()}
            except Exception as error:
                row = {**facts, **row, "error": first_line(error), "out_of_memory": is_out_of_memory(error)}
            print(json.dumps(row), flush=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
