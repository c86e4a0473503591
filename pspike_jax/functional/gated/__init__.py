"""Recurrences whose decay changes with every step."""

from pspike_jax.functional.gated.recurrence import gated_recurrence, selective_recurrence

__all__ = ["gated_recurrence", "selective_recurrence"]
