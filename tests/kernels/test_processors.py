import pytest

from nemojax.kernels import processors

HASWELL = "fpu sse4_2 avx fma movbe f16c abm bmi1 avx2 bmi2"
SKYLAKE = f"{HASWELL} avx512f avx512dq avx512cd avx512bw avx512vl"


@pytest.mark.parametrize(
    "machine, flags, expected",
    [
        ("x86_64", "fpu sse4_2", None),
        ("x86_64", HASWELL, "avx2"),
        ("x86_64", HASWELL.replace("fma ", ""), None),
        ("x86_64", SKYLAKE, "avx512"),
        ("x86_64", f"{SKYLAKE} avx512_vnni", "avx512-vnni"),
        ("x86_64", f"{HASWELL} avx512_vnni", "avx2"),
        ("aarch64", "fp asimd", "neon"),
        ("riscv64", HASWELL, None),
    ],
)
def test_the_best_level_that_a_processor_has(machine, flags, expected):
    level = processors.level(machine, frozenset(flags.split()))
    assert (level and level.name) == expected


def test_a_library_is_not_loaded_where_it_can_not_run():
    """Each level asks for every flag that its options let the compiler use."""
    for level in processors.LEVELS["x86_64"]:
        assert ("-mavx512vnni" in level.options) == ("avx512_vnni" in level.flags)
        assert ("-march=x86-64-v4" in level.options) == ("avx512bw" in level.flags)
        assert "avx2" in level.flags
