"""Recurrences whose decay changes with every step."""

from pspike_jax.functional.gated.parallel import (
    sequence_parallel_gated,
    sequence_parallel_selective,
)
from pspike_jax.functional.gated.recurrence import gated_recurrence, selective_recurrence

__all__ = [
    "gated_recurrence",
    "selective_recurrence",
    "sequence_parallel_gated",
    "sequence_parallel_selective",
]
