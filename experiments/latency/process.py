"""A contender's process, from the command's side."""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from nemojax import compilation


class ContenderError(Exception):
    """Reports a contender whose process has ended or does not answer; says why."""


class ContenderProcess:
    """A process that runs a contender; it is ready when the constructor returns.

    Args:
      name: of the contender.
      directory: of the weights and recordings.
      threads: that the contender may compute with.
      cache: a directory for jax's compiled programs; None to keep none, unless the environment names one.
    """

    def __init__(self, name: str, directory: Path, threads: int, cache: Path | None = None):
        self.name, self.started = name, time.perf_counter()
        self._errors: TextIO = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
            **({"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {compilation.SWITCH: "0"}),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.latency.worker", name, str(directory), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
        try:
            self._answer()
        except ContenderError:
            self.close()
            raise
        self.loaded_s = time.perf_counter() - self.started

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request of `worker.py` and returns the answer. Raises ContenderError."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the missing answer is reported below
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines()
            raise ContenderError(f"{self.name}: {lines[-1] if lines else f'exit code {self._process.returncode}'}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # the process has ended with a request still in the pipe
                if pipe is not None:
                    pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
