"""The device that computes, and the process that owns it."""

import os
import threading
from typing import Any

import jax

from nemojax.errors import ConfigError, ProcessError

_owner: int | None = None  # the process that uses jax; a process that is forked from it inherits the number
_lock = threading.Lock()


def default_device() -> Any:
    """Returns the first device that jax has.

    Raises:
      ConfigError: the user asked for a platform that is not here.
      ProcessError: see `check_process`.
    """
    check_process()
    try:
        return jax.devices()[0]
    except Exception as error:  # jax raises a RuntimeError or an AssertionError
        asked = getattr(jax.config, "jax_platforms", None)
        if not asked:
            raise
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"jax finds no device of JAX_PLATFORMS={asked}{f' ({reason})' if reason else ''}; install jax with support "
            "for it, or set another platform, such as JAX_PLATFORMS=cpu"
        ) from None


def check_process() -> None:
    """Notes which process uses jax.

    Raises:
      ProcessError: this process was forked from one that had used jax; jax's threads are not in it, and the first
        computation would wait for them forever.
    """
    global _owner
    process = os.getpid()
    if _owner is None:
        with _lock:
            _owner = _owner or process
    if _owner != process:
        raise ProcessError(
            f"process {process} was forked from process {_owner}, which had used nemojax before, and jax does not work "
            'after a fork; start processes with multiprocessing.get_context("spawn"), or fork before the first use'
        )
