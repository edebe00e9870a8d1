"""The garbage collector is paused where asked for, and afterwards it is as it was."""

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import nemojax
from nemojax import checkpoint, garbage
from nemojax.recognition import stream_batch


@pytest.fixture(autouse=True)
def enabled():
    assert gc.isenabled()
    yield
    gc.enable()


def test_pauses_overlap():
    with garbage.paused():
        assert not gc.isenabled()
        with garbage.paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_ends_a_pause():
    with pytest.raises(RuntimeError), garbage.paused():
        raise RuntimeError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with garbage.paused():
        pass
    assert not gc.isenabled()


def test_a_pause_of_another_thread_goes_on():
    begun, end = threading.Event(), threading.Event()

    def pause():
        with garbage.paused():
            begun.set()
            end.wait(30)

    thread = threading.Thread(target=pause)
    thread.start()
    assert begun.wait(30)
    with garbage.paused():
        pass
    assert not gc.isenabled()
    end.set()
    thread.join()
    assert gc.isenabled()


@pytest.mark.parametrize("seconds, given_back", [(1.0, [True]), (0.1, [])])
def test_the_end_of_long_pauses_gives_memory_back(monkeypatch, seconds, given_back):
    given, now_s = [], [0.0]
    monkeypatch.setattr(garbage, "give_back", lambda: given.append(gc.isenabled()))
    monkeypatch.setattr(garbage.time, "monotonic", lambda: now_s[0])
    with garbage.paused():
        with garbage.paused():
            now_s[0] += seconds
        assert not given
    assert given == given_back


@pytest.mark.skipif(garbage._malloc_trim() is None, reason="another C library")
def test_memory_that_was_freed_leaves_the_process():
    resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    pieces = [b"%d" % i * 25_000 for i in range(1000, 2000)]  # 100 kB, too small for memory of their own
    kept = pieces[::50]  # between the others, so that the heap's end stays where it is
    del pieces
    before = resident()
    garbage.give_back()
    assert resident() < before - 30_000_000 and len(kept) == 20


def test_another_c_library_gives_nothing_back(monkeypatch):
    monkeypatch.setattr(garbage, "_malloc_trim", garbage._malloc_trim.__wrapped__)
    monkeypatch.setattr(garbage.ctypes, "CDLL", lambda name: object())
    garbage.give_back()


def test_loading_and_the_first_step_of_a_size_pause_it(monkeypatch):
    seen = []

    def watch(owner, name):
        original = getattr(owner, name)

        def watched(*arguments, **settings):
            seen.append((name, gc.isenabled()))
            return original(*arguments, **settings)

        monkeypatch.setattr(owner, name, watched)

    watch(checkpoint, "load")
    watch(stream_batch, "init_state")
    recognizer = nemojax.load()
    stream = recognizer.stream(lookahead=1)
    watch(stream._batch, "_step")
    stream.push(np.zeros(10_000, np.float32))
    names = [name for name, _ in seen]
    assert {"load", "init_state", "_step"} == set(names) and names.count("_step") > 1
    first = names.index("_step")
    assert seen[: first + 1] == [(name, False) for name in names[: first + 1]]
    assert all(enabled for _, enabled in seen[first + 1 :])
