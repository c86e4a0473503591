"""Models that were trained here: weights as plain arrays, and a card that says what they are."""

from pspike_jax.pretrained.models import list_pretrained, load_pretrained

__all__ = ["list_pretrained", "load_pretrained"]
