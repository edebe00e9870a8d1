"""Jobs in threads, and the end of a process in which one is not done."""

import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import pytest

from experiments.gpu.programs import Programs, still_compiling


def test_results_are_looked_up_by_key():
    programs = Programs(2)
    programs.submit("good", lambda: 1)
    programs.submit("good", lambda: 2)
    programs.submit("bad", lambda: 1 / 0)
    assert programs.wait(60) == 0 and programs.pending == 0 and programs.result("good") == 1
    with pytest.raises(ZeroDivisionError):
        programs.result("bad")
    programs.close()


def test_a_program_is_compiled_with_its_times_and_memory():
    programs = Programs(1)
    programs.add("square", lambda: jax.jit(lambda x: x @ x).lower(jnp.ones((8, 8))))
    program = programs.result("square")
    assert program.lower_s > 0 and program.compile_s > 0 and program.memory()["argument_bytes"] == 256
    programs.close()


def test_unfinished_jobs_are_known_until_they_end():
    programs, begun, release = Programs(1), threading.Event(), threading.Event()
    programs.submit("slow", lambda: begun.set() or release.wait(60))
    programs.submit("waiting", lambda: None)
    begun.wait(60)
    assert programs.wait(0) == 2 and still_compiling()
    programs.close()  # cancels the second job
    assert programs.pending == 1 and still_compiling()
    release.set()
    programs._pool.shutdown()  # waits for the thread
    assert programs.pending == 0 and not still_compiling()


EXIT = """
import threading
from experiments.gpu import run
from experiments.gpu.programs import Programs
programs = Programs(1)
programs.submit("endless", threading.Event().wait)
programs.close()
run.EXPERIMENT = type("Experiment", (), {"main": staticmethod(lambda arguments: print("printed") or 3)})
run.main([])
"""


def test_the_command_does_not_wait_for_programs():
    done = subprocess.run([sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (3, "printed\n", "")
