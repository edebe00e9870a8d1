"""nemojax: a cache-aware streaming speech recognizer in JAX.

Dimensions, one letter each, the same everywhere:

    B streams            N samples             F log-mel frames      M mel bins
    T encoder frames     C cached frames       D model width         H heads
    K head width         U labels              P prediction width    J joint width
    V vocabulary with blank                    L layers             W hypotheses of a beam

Array annotations name them (`Float[Array, "B T D"]`); where a function holds the same numbers in several
layouts, names end in them (`score_BHTC`). Units are in names: `hop_samples`, `lookahead` is in encoder
frames, times end in `_s` or `_ms`.
"""

import lazy_loader

__version__ = "0.1.0"

# The public names are those of __init__.pyi. Each is imported when first used: a command that needs no jax should not
# wait for it.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
