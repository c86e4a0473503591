"""LinOSS (Rusch & Rus 2024, 2410.03943): undamped oscillators, in the blocks of D-LinOSS."""

import dataclasses

from pspike_jax.models.config import option
from pspike_jax.models.dlinoss import DLinOSS, OscillatorConfig
from pspike_jax.nn.mixers.oscillator import OscillatorSSM


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinOSSConfig(OscillatorConfig):
    """Fields of LinOSS."""

    scheme: str = option(
        "im", "implicit steps, which contract, or implicit and explicit ones, which do not",
        choices=("im", "imex"),
    )
    dropout: float = option(0.05, "rate", low=0, high=1, ends="[)")

    def make_mixer(self, **kwargs) -> OscillatorSSM:
        """Return the oscillators of a block; keyword arguments are those of every module."""
        return OscillatorSSM(
            features=self.d_model,
            oscillators=self.d_state,
            scheme=self.scheme,
            start="uniform",
            step_std=None,
            engine=self.engine,
            **kwargs,
        )


class LinOSS(DLinOSS):
    """A stack of blocks of undamped oscillators; nothing spikes."""

    config: LinOSSConfig


def _published(scheme: str, n_layers: int, d_model: int, d_state: int, **fields) -> LinOSSConfig:
    """Return the settings of one of the authors' configuration files at 83e6318."""
    sizes = {"n_layers": n_layers, "d_model": d_model, "d_state": d_state}
    return LinOSSConfig(scheme=scheme, **sizes, **fields)


PRESETS = {
    "linoss": LinOSSConfig(),
    # The batch norm of the authors' program, which trains by running statistics, and its dropout.
    "program": LinOSSConfig(norm="running", shared_dropout=True),
    "eigenworms": _published("im", 2, 128, 64, num_outputs=5),
    "ethanol_concentration": _published("im", 4, 16, 16, num_outputs=4),
    "heartbeat": _published("im", 6, 16, 16, num_outputs=2),
    "motor_imagery": _published("im", 2, 128, 16, num_outputs=2),
    "self_regulation_scp1": _published("im", 6, 128, 256, num_outputs=2),
    "self_regulation_scp2": _published("imex", 6, 64, 256, num_outputs=2),
    # Numbers at every 128th step.
    "ppg_dalia": _published("im", 6, 16, 64, num_outputs=1, pool="none", activation="tanh"),
    "tiny": LinOSSConfig(num_outputs=3, d_model=6, d_state=4, n_layers=2, dropout=0.0),
}
