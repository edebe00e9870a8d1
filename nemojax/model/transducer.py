"""The model: an encoder, a prediction network and a joint network (Graves 2012)."""

from flax import nnx

from nemojax.config import ModelConfig
from nemojax.model.encoder import Encoder
from nemojax.model.features import MelEnergies, mel_energies
from nemojax.model.joint import Joint
from nemojax.model.prediction import PredictionNetwork


class Transducer(nnx.Module):
    """An RNN transducer as an immutable pytree of `nnx.Param`s; its settings are static."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs | None):
        self.config = config
        self.mel_energies: MelEnergies = mel_energies
        self.encoder = Encoder(config, rngs=rngs)
        self.prediction = PredictionNetwork(config, rngs=rngs)
        self.joint = Joint(config, rngs=rngs)
