"""Published systems, one file each, and the zoo that names them."""

from pspike_jax.models.poles import poles
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.models.zoo import create_model, describe_model, list_models

__all__ = ["SequenceModel", "create_model", "describe_model", "list_models", "poles"]
