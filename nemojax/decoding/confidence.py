"""Confidences of labels and words, from the probabilities of all labels where one was emitted.

A row of joint outputs has V labels, blank included, of probabilities p. With exponent alpha, written a:

    measure      form  a other than 1                                                   a = 1
    probability        the probability of the label itself; neither a nor the form has an effect
    max_prob           (V^a max p^a - 1) / (V^a - 1)                                    (V max p - 1) / (V - 1)
    gibbs        lin   1 + S / (V^(1-a) ln V), with S = sum p^a ln p                    1 + S / ln V
                 exp   (exp(a S) - m) / (1 - m), with m = V^(-a V^(1-a))                (V exp S - 1) / (V - 1)
    tsallis      lin   1 + (1 - P) / (V^(1-a) - 1), with P = sum p^a                    as gibbs
                 exp   (exp((1 - P) / (1 - a)) - m) / (1 - m), m = exp((1 - V^(1-a)) / (1 - a))
    renyi        lin   1 + log2 P / ((a - 1) log2 V)                                    as gibbs
                 exp   (V P^(1/(a-1)) - 1) / (V - 1)

All are 0 where all labels are equally probable, and 1 where one is certain; where a > 1, gibbs may fall below 0, and is
0 then (Laptev and Ginsburg 2022, arXiv 2212.08703,
and NeMo's `ConfidenceMethodConfig`, whose defaults are these). `probability` is the label's own.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nemojax.errors import ConfigError
from nemojax.model.joint import Joint

MEASURES = ("probability", "max_prob", "gibbs", "tsallis", "renyi")
FORMS = ("exp", "lin")
AGGREGATIONS = ("min", "mean", "max", "prod")
NUMBER = re.compile(r"\d*\.?\d+")
MAX_ALPHA = 10.0  # beyond it, the smallest probabilities of float32 are 0


@dataclass(frozen=True)
class Confidence:
    """How the confidence of a label follows from its row of probabilities, and that of a word from its labels.

    A search takes it as its `confidence`. Without one, the confidence of a word is the probability of its least
    probable label.

    Args:
      measure: see the module.
      form: "exp" or "lin", for the three entropies.
      alpha: the exponent of probabilities; below 1, small ones count for more.
      words: how the confidences of a word's labels become the word's: their minimum, mean, maximum or product.

    Raises:
      ConfigError: an argument is not one of its values, or `alpha` is not more than 0 and at most 10.
    """

    measure: str = "tsallis"
    form: str = "exp"
    alpha: float = 0.33
    words: str = "min"

    def __post_init__(self) -> None:
        for name, known in (("measure", MEASURES), ("form", FORMS), ("words", AGGREGATIONS)):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"the {name} of a confidence must be one of {', '.join(known)}, not {value!r}")
        number = isinstance(self.alpha, Real) and not isinstance(self.alpha, bool)
        if not number or not 0 < self.alpha <= MAX_ALPHA:
            raise ConfigError(f"the alpha of a confidence must be more than 0 and at most 10, not {self.alpha!r}")

    @classmethod
    def parse(cls, text: str) -> "Confidence":
        """Reads MEASURE[,FORM][,ALPHA][,WORDS], as in "tsallis" or "gibbs,lin,0.5,mean". Raises ConfigError."""
        measure, *rest = (part.strip() for part in text.split(","))
        chosen: dict[str, Any] = {"measure": measure}
        for part in rest:
            name = "form" if part in FORMS else "words" if part in AGGREGATIONS else "alpha"
            if name in chosen or (name == "alpha" and not NUMBER.fullmatch(part)):
                raise ConfigError(
                    f"a confidence is written as MEASURE[,exp|lin][,ALPHA][,min|mean|max|prod], such as "
                    f"tsallis,exp,0.33,min, not {text!r}"
                )
            chosen[name] = float(part) if name == "alpha" else part
        return cls(**chosen)

    def of_labels(self, joint: Joint, logits: Float[Array, "B V"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
        """Computes the confidence of one label in each row of logits, 0 to 1."""
        return self.of_rows(logits, labels, joint.log_sum_exp)

    def of_rows(
        self,
        logits: Float[Array, "B V"],
        labels: Int[Array, " B"],
        log_sum_exp: Callable[[Float[Array, "B V"]], Float[Array, " B"]],
    ) -> Float[Array, " B"]:
        """Computes what `of_labels` does; every sum is by `log_sum_exp`, whose order of addition may be fixed."""
        # from the largest on: else the log-probability of a label that is nearly certain is lost in rounding
        logits = logits - logits.max(1, keepdims=True)
        log_p, a, count = logits - log_sum_exp(logits)[:, None], float(self.alpha), logits.shape[1]
        value: Array
        if self.measure == "probability":
            value = jnp.exp(jnp.take_along_axis(log_p, labels[:, None], 1)[:, 0])
        elif self.measure == "max_prob":  # divided by V^a, which may be larger than float32 holds
            value = (jnp.exp(a * log_p.max(1)) - count**-a) / (1 - count**-a)
        elif self.measure == "gibbs" or a == 1:
            # minus S as a sum of positive terms; a log-probability of 0 adds none
            value = self._gibbs(-jnp.exp(log_sum_exp(a * log_p + jnp.log(jnp.maximum(-log_p, 0)))), count)
        else:
            value = self._of_power_sum(log_sum_exp(a * log_p), count)
        clipped: Array = jnp.clip(value, 0, 1)
        return clipped

    def _gibbs(self, entropy: Float[Array, " B"], count: int) -> Float[Array, " B"]:
        """Computes the measure from S = sum p^a ln p."""
        a = float(self.alpha)
        if self.form == "lin":
            linear: Array = 1 + entropy / (count ** (1 - a) * math.log(count))
            return linear
        least: float = count ** (-a * count ** (1 - a))
        exponential: Array = (jnp.exp(a * entropy) - least) / (1 - least)
        return exponential

    def _of_power_sum(self, log_sum: Float[Array, " B"], count: int) -> Float[Array, " B"]:
        """Computes Tsallis's or Rényi's measure from ln P, where a is not 1."""
        a = float(self.alpha)
        rest: Array = -jnp.expm1(log_sum)  # 1 - P, exact also where P is close to 1
        value: Array
        if self.measure == "renyi" and self.form == "lin":
            value = 1 + log_sum / ((a - 1) * math.log(count))
        elif self.measure == "renyi":
            value = (count * jnp.exp(log_sum / (a - 1)) - 1) / (count - 1)
        elif self.form == "lin":
            value = 1 + rest / (count ** (1 - a) - 1)
        else:
            least = math.exp((1 - count ** (1 - a)) / (1 - a))
            value = (jnp.exp(rest / (1 - a)) - least) / (1 - least)
        return value

    def of_word(self, labels: Sequence[float]) -> float:
        """Returns the confidence of a word from those of its labels, at least one."""
        if self.words == "mean":
            return math.fsum(labels) / len(labels)
        return math.prod(labels) if self.words == "prod" else min(labels) if self.words == "min" else max(labels)


def as_confidence(given: Confidence | str | None) -> Confidence | None:
    """Returns a confidence as a value; a text is read by `Confidence.parse`."""
    return Confidence.parse(given) if isinstance(given, str) else given
