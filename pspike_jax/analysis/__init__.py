"""What a trained model does: how much it fires, what that costs, and pictures of it."""

from pspike_jax.analysis import activity, energy, measure, plots, report

__all__ = ["activity", "energy", "measure", "plots", "report"]
