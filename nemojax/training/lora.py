"""LoRA (Hu et al. 2021): a kernel W is trained as W + alpha / rank * A B, where W stays fixed and A B has a low rank.

A and B, the kernel's adapter, are parameters of the training state beside the model's own. Their product is added to
the kernel before each step's forward pass, so no layer knows of them, and once more when a model is evaluated or
exported. What is exported is an ordinary model.

This saves the optimizer's state and the gradient of all other parameters. It saves little time: XLA computes a kernel's
gradient, and from it those of A and B.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from nemojax.errors import ConfigError

DOWN, UP = ".lora_down", ".lora_up"  # ends of the paths of A [I, rank] and B [rank, O], after the kernel's path


@dataclass(frozen=True)
class LoraConfig:
    """Settings of LoRA."""

    rank: int = 0  # columns of A and rows of B; 0 for no adapters
    alpha: float = 32.0  # the product of A and B is multiplied by alpha / rank
    # a regular expression, found in the paths of the kernels that are adapted
    kernels: str = r"encoder\.blocks\.\d+\.(attention|feedforward\d)\."

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ConfigError(f"lora.rank must be at least 0, not {self.rank}")
        if not self.alpha > 0:
            raise ConfigError(f"lora.alpha must be greater than 0, not {self.alpha}")
        try:
            re.compile(self.kernels)
        except re.error as error:
            raise ConfigError(f"lora.kernels: {self.kernels!r} is not a regular expression ({error})") from None


NO_LORA = LoraConfig()


def is_adapter(name: str) -> bool:
    """Returns whether a parameter belongs to an adapter."""
    return name.endswith((DOWN, UP))


def adapters(parameters: Mapping[str, Any], config: LoraConfig, seed: int) -> dict[str, Array]:
    """Returns new adapters for the kernels that the settings name: A is random and B is 0, so the model is as before.

    Raises:
      ConfigError: the settings name no kernel of two dimensions, or one that is smaller than the rank.
    """
    if not config.rank:
        return {}
    kernels = {name: x.shape for name, x in parameters.items() if name.endswith(".kernel") and len(x.shape) == 2}
    chosen = {name: shape for name, shape in kernels.items() if re.search(config.kernels, name)}
    if not chosen:
        raise ConfigError(
            f"lora.kernels: {config.kernels!r} is found in no kernel's path; kernels: {', '.join(kernels)}"
        )
    made = {}
    for key, (name, (inputs, outputs)) in zip(
        jax.random.split(jax.random.key(seed), len(chosen)), chosen.items(), strict=True
    ):
        if config.rank > min(inputs, outputs):
            raise ConfigError(
                f"lora.rank {config.rank} is more than {name}, [{inputs}, {outputs}], has; set a lower one"
            )
        made[name + DOWN] = jax.random.normal(key, (inputs, config.rank), jnp.float32) * inputs**-0.5
        made[name + UP] = jnp.zeros((config.rank, outputs), jnp.float32)
    return made


def merged(parameters: Mapping[str, Array], config: LoraConfig) -> dict[str, Array]:
    """Returns the model's own parameters, with its adapter added to each kernel that has one."""
    if not config.rank:
        return dict(parameters)

    def whole(name: str, kernel: Array) -> Array:
        if name + DOWN not in parameters:
            return kernel
        low_rank = jnp.matmul(parameters[name + DOWN], parameters[name + UP], precision=jax.lax.Precision.HIGHEST)
        return kernel + config.alpha / config.rank * low_rank

    return {name: whole(name, value) for name, value in parameters.items() if not is_adapter(name)}
