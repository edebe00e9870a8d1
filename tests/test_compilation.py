import time
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from nemojax import compilation
from nemojax.compilation import DIRECTORY, ENABLED, MIN_SECONDS, Program, Watch
from nemojax.errors import ConfigError

COMPILE, READ = compilation.COMPILE_EVENTS[0], compilation.READ_EVENT


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """jax as a new process has it, with a user's cache directory of its own."""
    before = {name: getattr(jax.config, name) for name in (DIRECTORY, MIN_SECONDS)}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.delenv(compilation.SWITCH, raising=False)
    monkeypatch.delenv(MIN_SECONDS.upper(), raising=False)
    jax.config.update(DIRECTORY, None)
    jax.config.update(MIN_SECONDS, 1.0)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compile_once() -> None:
    """Compiles or reads a program: the function is a new one each time, which memory does not hold."""
    jax.jit(lambda x: x + 1)(np.ones(3, np.float32))


def test_what_is_kept_is_read_by_the_next_process(no_cache, tmp_path):
    compile_once()  # jax has looked for its directory before
    path = compilation.keep(tmp_path / "a")
    assert path is not None and path.parent == tmp_path / "a" and compilation.directory() == path
    with Watch() as watch:
        compile_once()
        compile_once()
    assert len(watch.compiled) == len(watch.read) == 1 and len(list(path.iterdir())) == 1
    with Watch() as watch:
        other = compilation.keep(tmp_path / "b")  # jax opens the new one too
        compile_once()
    assert len(watch.compiled) == 1 and not watch.read
    assert other is not None and len(list(other.iterdir())) == len(list(path.iterdir())) == 1


def test_a_directory_is_made_with_its_parents_and_may_exist(no_cache, tmp_path):
    path = compilation.keep(tmp_path / "a" / "b")
    assert path is not None and path.is_dir() and compilation.keep(tmp_path / "a" / "b") == path


def test_a_directory_may_be_in_the_home_directory(no_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = compilation.keep("~/programs")
    assert path is not None and path.parent == tmp_path / "programs"


def test_by_default_it_is_the_users_cache(no_cache, tmp_path):
    path = compilation.keep()
    assert path is not None and path.parent == tmp_path / "user" / "nemojax" and path.is_dir()
    assert getattr(jax.config, MIN_SECONDS) == 0.0


def test_the_users_settings_of_jax_win(no_cache, monkeypatch, tmp_path):
    monkeypatch.setenv(compilation.SWITCH, str(tmp_path / "switch"))
    jax.config.update(DIRECTORY, str(tmp_path / "mine"))
    assert compilation.keep() == tmp_path / "mine" and getattr(jax.config, MIN_SECONDS) == 1.0
    jax.config.update(DIRECTORY, None)
    jax.config.update(ENABLED, False)
    try:
        assert compilation.keep() is None and getattr(jax.config, DIRECTORY) is None
    finally:
        jax.config.update(ENABLED, True)
    monkeypatch.setenv(MIN_SECONDS.upper(), "1")
    assert compilation.keep(tmp_path) is not None and getattr(jax.config, MIN_SECONDS) == 1.0


def test_the_switch_names_a_directory_or_none(no_cache, monkeypatch, tmp_path):
    monkeypatch.setenv(compilation.SWITCH, "0")
    assert compilation.keep() is None and compilation.keep(None) is None
    monkeypatch.setenv(compilation.SWITCH, str(tmp_path / "switch"))
    path = compilation.keep()
    assert path is not None and path.parent == tmp_path / "switch"


def test_a_directory_that_cannot_be_made(no_cache, monkeypatch, tmp_path):
    (tmp_path / "user").write_text("not a directory")
    with pytest.raises(ConfigError, match="compiled programs can't be kept in "):
        compilation.keep(tmp_path / "user")
    with pytest.warns(UserWarning, match=r"compiles again. \$NEMOJAX_COMPILATION_CACHE names a directory"):
        assert compilation.keep() is None
    assert getattr(jax.config, DIRECTORY) is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home directory")))
    with pytest.warns(UserWarning, match="no home directory; without it"):
        assert compilation.keep() is None


def test_the_kind_of_a_processor(monkeypatch, tmp_path):
    """Its architecture and its instructions; not its number or its speed."""
    text = "processor\t: 0\nmodel name\t: A\nflags\t\t: fpu avx2\nbugs\t: x\n\nprocessor\t: 1\nflags\t\t: other\n"
    for name, flags in (("flags\t\t", "flags"), ("Features\t", "Features")):
        (tmp_path / "cpuinfo").write_text(text.replace("flags\t\t", name))
        with monkeypatch.context() as patch:
            patch.setattr(compilation, "Path", lambda path: tmp_path / "cpuinfo")
            patch.setattr(compilation.platform, "machine", lambda: "x86_64")
            patch.setattr(compilation.platform, "processor", lambda: "unknown")
            assert compilation.processor().replace("\t", "") == f"x86_64 {flags}: fpu avx2"
            (tmp_path / "cpuinfo").unlink()
            assert compilation.processor() == "x86_64 unknown"


def test_each_kind_of_processor_has_its_own(monkeypatch, tmp_path):
    here = compilation.for_this_processor(tmp_path)
    assert here == compilation.for_this_processor(tmp_path) and here.parent == tmp_path
    monkeypatch.setattr(compilation, "processor", lambda: "x86_64 flags: another")
    assert compilation.for_this_processor(tmp_path) != here


def test_long_compilations_are_reported(no_cache):
    reports: list[Program] = []
    watch = Watch(reports.append, notice_s=0.02)
    with watch, compilation.announced("the C++ kernels"):
        deadline_s = time.monotonic() + 30
        while not reports and time.monotonic() < deadline_s:
            time.sleep(0.01)
    assert [report.name for report in reports] == 2 * ["the C++ kernels"]
    assert reports[0].seconds is None and reports[1] == watch.compiled[0]
    with Watch(reports.append, notice_s=30.0), compilation.announced("a short one"):
        pass
    assert len(reports) == 2


def test_what_a_stopped_watch_saw_begin_is_not_counted_once_it_watches_again(no_cache):
    watch = Watch()
    with ExitStack() as begun:
        with watch:
            begun.enter_context(compilation.announced("the C++ kernels"))
        watch.start()
    watch.stop()
    assert not watch.compiled


def test_what_is_read_is_not_reported(no_cache):
    reports: list[Program] = []
    with Watch(reports.append, notice_s=60.0) as watch:
        watch._begin("another event", 0.0)
        watch._begin(COMPILE, 0.0, fun_name="jit(step)")
        watch._note_read(READ)
        watch._notify(next(iter(watch._active.values())))
        watch._end(COMPILE, 0.5, fun_name="jit(step)")
        watch._end(COMPILE, 0.5, fun_name="jit(begun before the watch)")
    assert watch.read == [Program("step", 0.5, read=True)] and not watch.compiled and not reports


def test_it_waits_longer_for_a_program_of_which_one_is_kept(no_cache, tmp_path, monkeypatch):
    for notice_s, kept, waits_s in ((1.0, False, 1.0), (1.0, True, 3.0), (5.0, True, 5.0)):
        monkeypatch.setattr(compilation, "_is_kept", lambda name, kept=kept: kept)
        watch = Watch(notice_s=notice_s)
        watch._begin(COMPILE, 0.0, fun_name="jit(a(b))")
        (active,) = watch._active.values()
        assert (active.name, active.timer.interval, active.timer.daemon) == ("a(b)", waits_s, True)
        watch._begin(COMPILE, 0.0)  # without a name, in the place of the first
        assert next(iter(watch._active.values())).name == "a program"
        for thread in (active.timer, *(each.timer for each in watch._active.values())):
            thread.cancel()
    monkeypatch.undo()
    path = compilation.keep(tmp_path)
    assert path is not None and not compilation._is_kept("step")
    (path / "jit_step-0123-cache").touch()
    assert compilation._is_kept("step") and not compilation._is_kept("prepare")
