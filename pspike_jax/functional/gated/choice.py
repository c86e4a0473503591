"""Which engine `auto` runs where decays change with every step.

Nobody has measured these rules on a quiet machine yet. They follow from what the engines move: a
sequential scan keeps a state of each step for the backward pass, the chunked engine about one in
sqrt(L), and it has a fixed cost of a few steps.
"""

from pspike_jax.functional.engine import Engine

# Sequences of fewer steps are run one step at a time, by platform.
SHORTEST_CHUNKED = {"cpu": 8, "gpu": 4, "tpu": 4}


def choose_gated_engine(platform: str, length: int) -> Engine:
    """Return the engine that `auto` runs for L steps on "cpu", "gpu" or "tpu"."""
    return Engine.SEQUENTIAL if length < SHORTEST_CHUNKED[platform] else Engine.CHUNKED


def explain_gated_engine(platform: str, length: int) -> str:
    """Say which engine `auto` runs for L steps, and why.

    Raises:
      ValueError: a platform that has no rule.
    """
    if platform not in SHORTEST_CHUNKED:
        known = sorted(SHORTEST_CHUNKED)
        raise ValueError(f"platform {platform!r} has no rule; there are rules for {known}")
    engine, shortest = choose_gated_engine(platform, length), SHORTEST_CHUNKED[platform]
    reason = f"L {length} is {'below' if length < shortest else 'at least'} {shortest} steps"
    return (
        f"{engine.value}: {reason}; a rule for {platform} by reasoning, not measured; on such a "
        "machine run python -m benchmarks.gated"
    )
