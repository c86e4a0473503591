"""Which tests run in which lane: `-m quick`, `-m newer`, `-m docs`. The marks are set here alone.

  quick  what a person runs while writing: the first test of each file, with its first parameters,
         or the one named below where the first is slow. Under two minutes on two cores.
  newer  what newer versions of jax, flax, optax and orbax could break: .ci/run runs it on the
         newest Python of the machine.
  slow   what takes long and no other lane runs: by hand, `python -m pytest -m slow`.
  docs   what compares committed prose, records and pictures with each other, and the types that a
         user's program sees. The README's command leaves it out; .ci/run runs it by itself.
"""

import functools

import pytest

from pspike_jax.models.zoo import MODELS

# {file: tests}, in place of the first: for another module, or because the first is slow.
QUICK = {
    "test_data_series": (
        "test_vowels_keep_the_official_split_and_order_of_test",
        "test_spoken_digits_hold_every_recording_once",
    ),
    "test_faults": (),
    "test_figures": ("test_draw_neuron_takes_the_median_of_those_that_fire_in_valid_steps",),
    "test_loop": ("test_fit_learns_the_tiny_task",),
    "test_main": ("test_build_names_an_unknown_key_and_the_nearest_known_one",),
    "test_object_storage": (),
    "test_processes": (),
    "test_neurons": (
        "test_unroll_matches_float64_loop",
        "test_unroll_applies_the_affine_map_to_the_currents",
        "test_subthreshold_transition_is_what_the_equations_say",
    ),
    "test_silif": (
        "test_zoo_has_the_eight_models",
        "test_poles_are_the_eigenvalues_of_the_neurons",
        "test_dropout_keeps_a_share_and_scales_it",
    ),
}
NEWER = {
    "test_activity", "test_checkpoints", "test_evaluation", "test_interop_pspikessm",
    "test_interop_silif", "test_linear_ssm", "test_loop", "test_lowering", "test_main",
    "test_measure", "test_metrics", "test_modes", "test_neurons", "test_optimizers", "test_plan",
    "test_processes", "test_s4d", "test_sampling", "test_sharding", "test_state", "test_surrogates",
    "test_zoo",
}
# Of files whose other clauses no library could break alone: what every model traces and compiles.
NEWER_TESTS = {
    "test_outputs_and_counts_are_those_of_the_valid_steps",
    "test_each_parameter_learns",
    "test_export_takes_any_batch",
}
# Hundreds of compilations: all modes of JAX over all engines, all sites on all mixers; installations
# of all that the package needs, a Python after the other; and the common contract of models whose
# class another model has, too.
SLOW = {"test_install", "test_jax_modes", "test_sites_on_mixers"}
CONTRACT = {"test_contract", "test_contract_training"}
DOCS = {"test_docs", "test_notebook", "test_readme", "test_types"}
# Of files whose other tests are of code.
DOCS_TESTS = ("test_committed_", "test_readme_", "test_papers_figures_", "test_cards_")


def is_docs(module: str, test: str) -> bool:
    """Whether a test is of committed prose and records, or of types."""
    return module in DOCS or test.startswith(DOCS_TESTS)


def is_slow(item: pytest.Item) -> bool:
    """Whether a test is left to the slow lane."""
    module = item.module.__name__
    name = getattr(item, "callspec", None) and item.callspec.params.get("name")
    return module in SLOW or (module in CONTRACT and name in of_a_class_that_another_has())


@functools.cache
def of_a_class_that_another_has() -> frozenset[str]:
    """Return the models whose class has a model before them in the zoo."""
    seen, repeated = set(), set()
    for name, family in MODELS.items():
        (repeated if family.model in seen else seen).add(
            name if family.model in seen else family.model
        )
    return frozenset(repeated)


def mark(items: list[pytest.Item]) -> None:
    """Give the collected tests the marks of their lanes.

    Args:
      items: as pytest collected them, in the order of their files.
    """
    chosen: dict[str, tuple[str, ...]] = dict(QUICK)
    marked = set()
    for item in items:
        module, test = item.module.__name__, getattr(item, "originalname", item.name)
        if is_docs(module, test):
            item.add_marker("docs")
            continue
        if is_slow(item):
            item.add_marker("slow")
            continue
        if module in NEWER or test in NEWER_TESTS:
            item.add_marker("newer")
        if test in chosen.setdefault(module, (test,)) and (module, test) not in marked:
            marked.add((module, test))
            item.add_marker("quick")
