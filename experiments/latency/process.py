"""A contender in a process of its own, seen from outside."""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO


class Failed(Exception):
    """A contender's process has ended, or does not answer."""


class Process:
    """A contender at work."""

    def __init__(self, name: str, directory: Path, threads: int, cache: Path | None = None):
        self.name, self.started = name, time.perf_counter()
        self._errors: TextIO = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
            **({"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {}),
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
        except Failed:
            self.close()
            raise
        self.loaded_s = time.perf_counter() - self.started

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the answer, or its absence, says why
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            raise Failed(f"{self.name}: {said[-1] if said else f'exit code {self._process.returncode}'}")
        return json.loads(line)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # it has ended, and a request to it is still in the pipe
                if pipe is not None:
                    pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
