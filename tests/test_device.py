"""Platforms that are not here, and processes that are forked after the first use of jax."""

import os
import signal

import jax
import numpy as np
import pytest

import nemojax
from nemojax import device
from nemojax.errors import ConfigError, NemojaxError, ProcessError


def in_a_fork(function) -> str:
    """Returns what a forked process makes of `function`; it has 20 s."""
    reading, writing = os.pipe()
    with pytest.warns(RuntimeWarning, match="fork"):  # jax warns
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            message = repr(function())
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
        os.write(writing, message.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        message = answer.read()
    os.waitpid(child, 0)
    return message


def test_a_fork_after_the_first_use_is_an_error(recognizer, checkpoint_directory):
    stream, parent = recognizer.stream(1), os.getpid()
    samples = np.zeros(stream.chunk_samples, np.float32)
    stream.push(samples)
    for use in (
        lambda: stream.push(samples),
        lambda: recognizer.stream(1),
        lambda: recognizer.transcribe(samples),
        lambda: nemojax.load(checkpoint_directory),
    ):
        message = in_a_fork(use)
        assert message.startswith("ProcessError: process ") and f"was forked from process {parent}" in message
    stream.push(samples)  # the parent continues


def test_a_process_of_its_own_may_use_jax(monkeypatch):
    monkeypatch.setattr(device, "_owner", None)
    device.check_process()
    device.check_process()
    monkeypatch.setattr(device.os, "getpid", lambda: -1)
    with pytest.raises(ProcessError, match="process -1 was forked"):
        device.check_process()
    assert issubclass(ProcessError, NemojaxError)


@pytest.mark.parametrize("error", [RuntimeError("Unable to initialize backend 'cuda'\nmore"), AssertionError()])
def test_a_platform_that_is_not_here_is_named(checkpoint_directory, monkeypatch, error):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "cuda")
    try:
        with pytest.raises(ConfigError, match="jax finds no device of JAX_PLATFORMS=cuda") as raised:
            nemojax.load(checkpoint_directory)
    finally:
        jax.config.update("jax_platforms", before)
    reason = " (Unable to initialize backend 'cuda')" if str(error) else ""
    assert str(raised.value) == (
        f"jax finds no device of JAX_PLATFORMS=cuda{reason}; install jax with support for it, or set another platform, "
        "such as JAX_PLATFORMS=cpu"
    )
