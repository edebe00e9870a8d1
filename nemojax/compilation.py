"""Compiled programs: the directory that keeps them for later processes, and reports while they are compiled.

jax has one such directory for a whole process. `keep` sets it, unless the user has. `Watch` counts and reports what is
compiled. Nothing here imports jax before a function is called.
"""

import hashlib
import os
import platform
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from nemojax.errors import ConfigError

SWITCH = "NEMOJAX_COMPILATION_CACHE"  # a directory, or 0 to keep nothing
NOTICE_S = 1.0  # a program that takes longer to compile is reported
KEPT_NOTICE_S = 3.0  # where a program of this name is kept: reading a large one takes a second too
DIRECTORY, ENABLED = "jax_compilation_cache_dir", "jax_enable_compilation_cache"  # settings of jax
MIN_SECONDS = "jax_persistent_cache_min_compile_time_secs"
COMPILE_EVENTS = ("/jax/core/compile/backend_compile_duration", "/nemojax/compile_duration")  # jax's, and our own
READ_EVENT = "/jax/compilation_cache/cache_hits"


def processor() -> str:
    """Returns the kind of this machine's processor: its architecture and the instructions that it has."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = re.search(r"^(?:flags|Features)\s*:.*", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return f"{platform.machine()} {flags[0] if flags else platform.processor()}"


def for_this_processor(parent: Path) -> Path:
    """Returns the directory inside `parent` for this kind of processor.

    Compiled code runs on one kind, and home directories and images are shared between machines.
    """
    return parent / hashlib.sha256(processor().encode()).hexdigest()[:12]


def user_directory() -> Path:
    """Returns the directory inside the user's cache. Raises RuntimeError if there is no home directory."""
    return for_this_processor(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nemojax")


def directory() -> Path | None:
    """Returns the directory in which jax keeps what it compiles in this process; None if it keeps nothing."""
    path = _setting(DIRECTORY)
    return Path(path) if path and _setting(ENABLED) else None


def keep(cache: str | Path | None = "auto") -> Path | None:
    """Makes jax keep what it compiles, of whatever size, and read it in later processes; returns the directory.

    This is a setting of jax for the whole process: other functions that are compiled in it are kept too.

    Args:
      cache: a directory, which gets one inside it for each kind of processor; None, to change nothing; or "auto":
        where jax has a directory already, or keeps nothing by `jax_enable_compilation_cache`, that stays as it is.
        Otherwise it is the directory that $NEMOJAX_COMPILATION_CACHE names, none if that is 0, and the user's cache
        directory by default.

    Raises:
      ConfigError: a directory that was named can't be made.
    """
    if cache == "auto":
        named = os.environ.get(SWITCH)
        if _setting(DIRECTORY) or not _setting(ENABLED) or named == "0":
            return directory()
        if not named:
            return _keep_for_user()
        cache = named
    if cache is None:
        return directory()
    return _keep_in(for_this_processor(Path(cache).expanduser().absolute()))


def _keep_for_user() -> Path | None:
    try:
        return _keep_in(user_directory())
    except (ConfigError, RuntimeError) as error:
        message = f"{error}; without it, each process compiles again. ${SWITCH} names a directory, or 0 for none"
        warnings.warn(message, stacklevel=3)
        return None


def _keep_in(path: Path) -> Path:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"compiled programs can't be kept in {path}: {error.strerror}") from None
    if _setting(DIRECTORY) != str(path):
        jax.config.update(DIRECTORY, str(path))
        compilation_cache.reset_cache()  # jax opens a directory once
    if MIN_SECONDS.upper() not in os.environ:
        jax.config.update(MIN_SECONDS, 0.0)
    return path


def _setting(name: str) -> Any:
    import jax

    return getattr(jax.config, name)


@contextmanager
def announced(name: str) -> Iterator[None]:
    """Reports to every `Watch` that something besides a jax program is compiled."""
    from jax import monitoring

    begun_s, event = time.monotonic(), COMPILE_EVENTS[1]
    monitoring.record_scalar(event, begun_s, fun_name=name)
    try:
        yield
    finally:
        monitoring.record_event_duration_secs(event, time.monotonic() - begun_s, fun_name=name)


class Program(NamedTuple):
    """A program that is compiled, or was read from the directory that keeps it."""

    name: str
    seconds: float | None  # None while it is being compiled
    read: bool = False


class _Active:
    """A program that is being compiled or read."""

    def __init__(self, name: str, notify: Callable[[Any], object], wait_s: float):
        self.name, self.read, self.noticed = name, False, False
        self.timer = threading.Timer(wait_s, notify, [self])
        self.timer.daemon = True


class Watch:
    """Counts the programs that are compiled and read in this process, and reports compilations that take long.

    It is a context manager, for all threads.

        with Watch(print):
            recognizer.transcribe("speech.wav")

    Args:
      report: called with a program once it takes more than a second, and again when it is done; from any thread.
      notice_s: that second.
    """

    def __init__(self, report: Callable[[Program], object] = lambda program: None, notice_s: float = NOTICE_S):
        self.compiled: list[Program] = []
        self.read: list[Program] = []
        self._report, self._notice_s = report, notice_s
        self._lock = threading.Lock()
        self._active: dict[int, _Active] = {}  # by thread

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begins to watch."""
        from jax import monitoring

        monitoring.register_scalar_listener(self._begin)
        monitoring.register_event_listener(self._note_read)
        monitoring.register_event_duration_secs_listener(self._end)

    def stop(self) -> None:
        """Ends it; what is being compiled then is not counted."""
        from jax import monitoring

        monitoring.unregister_scalar_listener(self._begin)
        monitoring.unregister_event_listener(self._note_read)
        monitoring.unregister_event_duration_listener(self._end)
        with self._lock:
            for active in self._active.values():
                active.timer.cancel()
            self._active.clear()

    def _begin(self, event: str, value: float | int, **facts: str | int) -> None:
        if event not in COMPILE_EVENTS:
            return
        name = re.sub(r"^jit\((.*)\)$", r"\1", str(facts.get("fun_name", "a program")))
        wait_s = self._notice_s if not _is_kept(name) else max(self._notice_s, KEPT_NOTICE_S)
        active = _Active(name, self._notify, wait_s)
        with self._lock:
            self._active[threading.get_ident()] = active
        active.timer.start()

    def _notify(self, active: _Active) -> None:
        with self._lock:  # so that the end is not reported before the beginning
            if active in self._active.values() and not active.read:
                active.noticed = True
                self._report(Program(active.name, None))

    def _note_read(self, event: str, **facts: str | int) -> None:
        if event == READ_EVENT and (active := self._active.get(threading.get_ident())) is not None:
            active.read = True

    def _end(self, event: str, duration_secs: float, **facts: str | int) -> None:
        if event not in COMPILE_EVENTS:
            return
        with self._lock:
            active = self._active.pop(threading.get_ident(), None)
        if active is None:  # begun before the watch
            return
        active.timer.cancel()
        program = Program(active.name, duration_secs, active.read)
        (self.read if active.read else self.compiled).append(program)
        if active.noticed:
            self._report(program)


def _is_kept(name: str) -> bool:
    """Returns whether a program of this name is kept, perhaps for other shapes."""
    path = directory()
    return path is not None and any(path.glob(f"jit_{name}-*"))
