"""Time by scope: of events written by hand, and of a function that runs under the profiler."""

from collections import Counter

import jax
import jax.numpy as jnp
import pytest

from experiments.speed import trace
from experiments.speed.trace import BETWEEN, NO_SCOPE, Event, Operation, faster_half, times

TEXT = """HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

%fused (p0: f32[4]) -> f32[4] {
  %p0 = f32[4]{0} parameter(0)
  %a.1 = f32[4]{0} add(%p0, %p0), metadata={op_name="jit(step)/encoder/block0/attention/add" stack_frame_id=3}
  %b.1 = f32[4]{0} add(%a.1, %a.1), metadata={op_name="jit(step)/encoder/block0/attention/btd,hd->bh/add"}
  ROOT %c.1 = f32[4]{0} multiply(%b.1, %p0), metadata={op_name="jit(step)/encoder/mul"}
}

%body.2 (p: (f32[4], s32[])) -> (f32[4], s32[]) {
  %p = (f32[4]{0}, s32[]) parameter(0)
  ROOT %t = (f32[4]{0}, s32[]) tuple(%p), metadata={op_name="jit(step)/decoder/while/body/closed_call/joint/jit(_where)/x"}
}

ENTRY %main.3 (x.1: f32[4]) -> f32[4] {
  %x.1 = f32[4]{0} parameter(0), metadata={op_name="samples"}
  %fusion.1 = f32[4]{0} fusion(%x.1), kind=kLoop, calls=%fused
  %named.1 = f32[4]{0} fusion(%x.1), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/features/jit(silu)"}
  %copy.1 = f32[4]{0:T(256)} copy(%named.1)
  %dot.1 = f32[4]{0} dot(%fusion.1, %named.1, %t)
  %while.1 = (f32[4]{0}, s32[], /*index=2*/s32[]) while(%dot.1), body=%body.2, metadata={op_name="jit(step)/decoder/while"}
  %plain.1 = f32[4]{0} negate(%named.1), metadata={op_name="jit(step)/jit(_where)/neg"}
  ROOT %argument.1 = f32[4]{0} copy(%x.1)
}
"""  # noqa: E501


def test_scopes_of_operations():
    module, known = trace.operations(TEXT)
    assert module == "jit_step"
    assert known["named.1"] == Operation("features")
    assert known["fusion.1"] == Operation("encoder/block0/attention", inferred=True)  # what most of it is
    assert known["copy.1"] == Operation("features", inferred=True)  # what it reads
    assert known["dot.1"] == Operation(None)  # of two scopes
    assert known["while.1"] == Operation("decoder", control=True)
    assert known["t"] == Operation("decoder/joint")
    assert trace.scope_of("jit(work)/heavy/eval_jaxpr/while/body/dot_general") == "heavy"  # as newer jax has it
    assert known["plain.1"] == Operation("") and known["argument.1"] == Operation(None)  # outside, and not known


def test_kinds_of_operations():
    call = '  %call.1 = f32[1]{0} custom-call(), custom_call_target="my_product", metadata={op_name="jit(f)/decoder/x"}'
    assert trace.operations("ENTRY %main (x: f32[1]) -> f32[1] {\n" + call)[1]["call.1"].target == "my_product"
    kinds = {
        ("encoder/block3/attention", "nemojax_int8_panel_product"): trace.PRODUCTS,
        ("encoder/block3/attention", "nemojax_fixed_norm"): "norms",
        ("encoder/block3/attention", ""): "attention and its caches",
        ("encoder/blocks/feedforward2", ""): "activation and residual sums",
        ("encoder/block0", ""): "norms",
        ("encoder/subsampling", "nemojax_panel_product"): "subsampling",
        ("decoder/prediction", "nemojax_panel_product"): "search",
        ("", ""): NO_SCOPE,
    }
    assert {given: trace.kind_of(Operation(given[0], target=given[1])) for given in kinds} == kinds


def test_time_is_divided_among_what_runs():
    known = {"a": Operation("one"), "b": Operation("two", inferred=True), "loop": Operation("three", control=True)}
    steps = [Event("step", 100e9, 110e9), Event("step", 120e9, 130e9)]
    events = [
        *(Event("a", 99e9, 102e9), Event("b", 101e9, 103e9)),  # the second begins within the first
        *(Event("loop", 104e9, 108e9), Event("a", 105e9, 106e9), Event("b", 105e9, 107e9)),
        Event("of another module", 128e9, 131e9),
        Event("a", 111e9, 119e9),  # in no step
    ]
    found = times(steps, reversed(events), known)
    # the first step: a 1 + 0.5 + 0.5, b 0.5 + 1 + 0.5 + 1, the loop alone 1 + 1, nothing 1 + 2; the second: nothing 8
    expected = {"one": 2 / 2, "two": 3 / 2, "three": 2 / 2, NO_SCOPE: 2 / 2, BETWEEN: (3 + 8) / 2}
    assert found.scopes == pytest.approx(expected) and list(found.scopes) == list(expected)
    assert found.whole_s == pytest.approx(10) == pytest.approx(sum(found.scopes.values()))
    assert found.inferred_s == pytest.approx(3 / 2)


def test_a_function_under_the_profiler(tmp_path):
    """Every operation of its two scopes is found in each step; how long each takes is the machine's affair."""

    @jax.jit
    def work(x):
        with jax.named_scope("once"):
            scale = jnp.sin(x[:1, :8]).sum()
        with jax.named_scope("often"):
            y = jax.lax.fori_loop(0, 4, lambda i, y: jnp.tanh(y @ x), x)
        return jnp.cos(y[0] * scale)

    x = jnp.full((64, 64), 0.01)
    compiled = work.lower(x).compile()
    compiled(x).block_until_ready()
    with jax.profiler.trace(str(tmp_path)):
        for number in range(3):
            with jax.profiler.StepTraceAnnotation("a step", step_num=number):
                compiled(x).block_until_ready()
            compiled(x).block_until_ready()  # not within a step
    module, known = trace.operations(compiled.as_text())
    steps, events = trace.read(tmp_path, module, "a step")
    assert len(steps) == 3 and {event.name for event in events} <= set(known)
    assert trace.read(tmp_path, "another", "a step") == (steps, []) and trace.read(tmp_path / "no", "", "") == ([], [])
    for step in steps:
        within = [event.name for event in events if step.begin_ns <= event.begin_ns <= event.end_ns <= step.end_ns]
        often = Counter(name for name in within if known[name].scope == "often" and not known[name].control)
        assert max(often.values()) == 4 and any(known[name].scope == "once" for name in within)
    found = times(steps, events, known)
    assert set(found.scopes) - {NO_SCOPE, BETWEEN} == {"once", "often"} and min(found.scopes.values()) > 0
    assert sum(found.scopes.values()) == pytest.approx(found.whole_s)
    assert found.whole_s == pytest.approx(sum(step.end_ns - step.begin_ns for step in steps) / 3e9)


def test_the_faster_half():
    same = lambda value: value
    assert faster_half([5, 1, 4, 2, 3], same) == [1, 2, 3] and faster_half([7], same) == [7]
