"""Models that were trained here: weights as plain arrays, and a card that says what they are."""

from pspike_jax.nn.surrogate_network import list_surrogate_networks, load_surrogate_network
from pspike_jax.pretrained.models import list_pretrained, load_pretrained

__all__ = [
    "list_pretrained",
    "list_surrogate_networks",
    "load_pretrained",
    "load_surrogate_network",
]
