"""What models are trained for: the loss, the metrics and the merit of a task."""

from pspike_jax.objectives import metrics
from pspike_jax.objectives.classification import Classification, StepClassification
from pspike_jax.objectives.counts import Counts
from pspike_jax.objectives.moments import ConditionalMoment
from pspike_jax.objectives.next_token import NextToken
from pspike_jax.objectives.objective import Objective
from pspike_jax.objectives.regression import Forecast, Regression, StepRegression
from pspike_jax.objectives.simplex import SimplexRegression
from pspike_jax.objectives.spike_rates import SpikeRates

__all__ = [
    "Classification",
    "ConditionalMoment",
    "Counts",
    "Forecast",
    "NextToken",
    "Objective",
    "Regression",
    "SimplexRegression",
    "SpikeRates",
    "StepClassification",
    "StepRegression",
    "metrics",
]
