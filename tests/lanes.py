"""Which tests run in which lane: `-m quick`, `-m newer`, `-m docs`. The marks are set here alone.

  quick  what a person runs while writing: the first test of each file, with its first parameters,
         or the one named below where the first is slow. Under two minutes on two cores.
  newer  what newer versions of jax, flax, optax and orbax could break, and the half of the common
         contract and of the recordings that the README's command leaves out: .ci/run runs it on the
         newest Python of the machine. `-m ""` runs all of a file.
  slow   what takes long and no other lane runs: by hand, `python -m pytest -m slow`.
  docs   what compares committed prose, records and pictures with each other, and the types that a
         user's program sees. The README's command leaves it out; .ci/run runs it by itself.
"""

import functools
import re

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
    "test_checkpoints", "test_linear_ssm", "test_loop", "test_main", "test_plan", "test_processes",
    "test_state",
}
# What runs long and newer libraries could break: the newer lane alone runs it.
ONLY_NEWER = {
    "test_main_evaluates_again_to_the_same_numbers": ".*",
    "test_main_plans_for_other_devices": ".*",
    "test_two_processes_have_the_losses_of_one": ".*",
    "test_one_process_reads_what_two_wrote": ".*",
    "test_run_best_captures_the_test_examples_of_a_run": ".*",
    "test_a_run_is_evaluated_again_to_the_same_numbers": ".*",
    "test_archive_runs_what_its_record_lacks_and_shows_means_over_seeds": ".*",
    "test_a_killed_process_stops_the_others_and_the_job_resumes": "2-0-1",
    "test_tree_gives_the_prefixes_of_the_definition_for_every_length": ".*",
    "test_smoke_run_writes_its_metrics_with_the_share_of_waiting": ".*",
    "test_recorded_results_are_computed_again": (
        r"(spiking/(exact_lif|pmsn_net)|dynamics/(langevinflow|seqboat|mamba_fscil)"
        r"|oscillators/(linoss_layer_a|dlinoss_network_a|event_ssm_network_a|s5_network_c)"
        r"|pspikessm_(bi|uni)directional).*"
    ),
    "test_benchmarks_run_and_their_contenders_agree": "neurons",
    "test_default_settings_train_every_model_and_validation_does_not_swing": "silif",
    "test_rematerialization_repeats_the_noise": ".*",
    "test_fit_goes_on_on_other_meshes_with_the_same_batches_and_noise": ".*",
    "test_training_with_split_time_has_the_losses_of_one_device": ".*",
}
# Hundreds of compilations: all modes of JAX over all engines, all sites on all mixers; installing
# all that the package needs, one Python after another; and the common contract of models whose
# class another model has, too.
SLOW = {"test_install", "test_jax_modes", "test_sites_on_mixers"}
# Of what runs long, the cases that other lanes run, too: a pattern of their ids.
NONE = "(?!)"
STAY = {
    "test_a_killed_process_stops_the_others_and_the_job_resumes": "2-0-1",
    "test_an_equal_fit_compiles_nothing_and_neither_does_another_rate": "cosine",
    "test_batch_over_eight_devices_spikes_as_on_one": NONE,
    "test_benchmarks_run_and_their_contenders_agree": "neurons",
    "test_constant_decays_near_one_stay_exact_over_65536_steps": "selective",
    "test_default_settings_train_every_model_and_validation_does_not_swing": "silif",
    "test_every_family_runs_small_and_is_shown": NONE,
    "test_every_parameter_gets_a_gradient": NONE,
    "test_every_parameter_learns": NONE,
    "test_feed_trains_at_the_shape_of_the_config": NONE,
    "test_final_accuracy_does_not_depend_on_the_mesh": NONE,
    "test_every_model_with_poles_tells_its_kernels": NONE,
    "test_fit_evaluate_and_predict_take_every_kind_of_task": "(?!packed steps|documents).*",
    "test_fit_resumes_from_any_point_to_the_same_bits": ".*True",
    "test_gated_engine_agrees_with_plain_scans_and_its_memory_is_told": NONE,
    "test_layers_of_spikes_keep_bits_and_have_the_gradient_of_layers_of_numbers": "diagonal",
    "test_layers_on_a_mesh_are_those_of_one_device": "dplr",
    "test_linear_ssm_stays_exact_on_long_sequences": "65536-chunked",
    "test_official_trains_in_blocks_of_features_as_by_convolution": NONE,
    "test_parallel_evaluation_gives_the_scan_and_says_what_it_took": "spikingssm.*",
    "test_plain_training_step_has_the_loss_and_gradient_of_the_model": "paper",
    "test_program_runs_where_this_package_is_not": ".*pspikessm",
    "test_rematerialization_has_the_same_spikes": NONE,
    "test_sampling_agrees_with_the_plain_sampler": NONE,
    "test_sigterm_to_one_process_stops_both_and_loses_nothing": NONE,
    "test_spikes_go_on_top_of_mixers_by_fields": "selective-lif",
    "test_spiking_blocks_take_a_state_that_features_share": "s5",
    "test_ssm_engines_agree_with_plain_programs": NONE,
    "test_stream_latencies_are_of_a_stream_that_agrees_with_the_parallel_pass": NONE,
    "test_streaming_equals_the_whole_sequence": "csilif-.*",
    "test_time_split_over_devices_changes_no_output_and_no_gradient": "ssd",
    "test_training_does_not_depend_on_the_mesh": "8-.*",
    "test_unroll_runs_in_double_precision_strict_promotion_shard_map_and_export": NONE,
    "test_what_a_training_step_sends_does_not_grow_with_time": NONE,
    "test_what_is_no_checkpoint_is_passed_over_and_nothing_outside_is_touched": ".*-00000003",
}
CONTRACT = {"test_contract", "test_contract_training"}
SHARED = CONTRACT | {"test_recordings"}  # between the README's command and the newer lane
DOCS = {"test_docs", "test_notebook", "test_readme", "test_types"}
# Of files whose other tests are of code.
DOCS_TESTS = ("test_committed_", "test_readme_", "test_papers_figures_", "test_cards_")


def is_docs(module: str, test: str) -> bool:
    """Whether a test is of committed prose and records, or of types."""
    return module in DOCS or test.startswith(DOCS_TESTS)


def is_slow(item: pytest.Item) -> bool:
    """Whether a test is left to the slow lane."""
    module = item.module.__name__
    case = getattr(item, "callspec", None)
    name = case and case.params.get("name")
    stay = STAY.get(getattr(item, "originalname", item.name), ".*")
    if not re.fullmatch(stay, case.id if case else ""):
        return True
    return module in SLOW or (module in CONTRACT and name in of_a_class_that_another_has())


def only_newer(item: pytest.Item) -> bool:
    """Whether the newer lane alone runs a test."""
    case = getattr(item, "callspec", None)
    pattern = ONLY_NEWER.get(getattr(item, "originalname", item.name))
    return pattern is not None and bool(re.fullmatch(pattern, case.id if case else ""))


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
    marked, cases = set(), {}
    for item in items:
        module, test = item.module.__name__, getattr(item, "originalname", item.name)
        if is_docs(module, test):
            item.add_marker("docs")
            continue
        if is_slow(item):
            item.add_marker("slow")
            continue
        if only_newer(item):
            item.add_marker("newer")
            item.add_marker("slow")
            continue
        if module in SHARED and hasattr(item, "callspec"):
            # Every second case, beginning with the first of one test and the second of the next.
            number, so_far = cases.get(test, (len(cases), 0))
            cases[test] = number, so_far + 1
            if (number + so_far) % 2:
                item.add_marker("newer")
                item.add_marker("slow")
                continue
        if module in NEWER:
            item.add_marker("newer")
        if test in chosen.setdefault(module, (test,)) and (module, test) not in marked:
            marked.add((module, test))
            item.add_marker("quick")
