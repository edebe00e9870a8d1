"""XLA's options as users have them; `tests/conftest.py` compiles everything else without optimization."""

from importlib.metadata import version

OPTIMIZED = {"xla_backend_optimization_level": 3} | (
    {"xla_cpu_use_fusion_emitters": True} if version("jaxlib").startswith("0.10.") else {}
)
