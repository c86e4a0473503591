"""Data sets, one file per source; every one is a `Task` and yields the same batches."""

from pspike_jax.data.arrays import from_arrays, inputs_alone
from pspike_jax.data.batches import Task, eval_batches, num_rows, train_batch, train_rows
from pspike_jax.data.catalog import generate_listops, generate_pathfinder, load_prepared
from pspike_jax.data.digits import load_digits
from pspike_jax.data.event_lists import from_events
from pspike_jax.data.instrument import load_instrument
from pspike_jax.data.japanese_vowels import load_japanese_vowels
from pspike_jax.data.lorenz import load_lorenz_spikes, load_lorenz_states
from pspike_jax.data.mackey_glass import generate_mackey_glass
from pspike_jax.data.own_files import load_arrays, load_events, load_wav_folder
from pspike_jax.data.own_tables import load_csv
from pspike_jax.data.oscillations import generate_oscillations
from pspike_jax.data.packing import PackedSplit, pack
from pspike_jax.data.ppg_dalia import load_ppg_dalia
from pspike_jax.data.recall import (
    generate_copying,
    generate_induction,
    generate_parity,
    generate_selective_copying,
    load_waiting_digits,
)
from pspike_jax.data.split import Split, check_split, take
from pspike_jax.data.spoken_digits import load_spoken_digits
from pspike_jax.data.stand_in import load_stand_in
from pspike_jax.data.uea import load_uea

# What a config may name; each is called with the config's other fields.
TASKS = {
    "digits": load_digits,
    "instrument": load_instrument,
    "japanese_vowels": load_japanese_vowels,
    "spoken_digits": load_spoken_digits,
    "prepared": load_prepared,
    "lorenz_spikes": load_lorenz_spikes,
    "lorenz_states": load_lorenz_states,
    "listops": generate_listops,
    "pathfinder": generate_pathfinder,
    "stand_in": load_stand_in,
    "arrays": load_arrays,
    "csv": load_csv,
    "wav_folder": load_wav_folder,
    "events": load_events,
    "uea": load_uea,
    "ppg_dalia": load_ppg_dalia,
    "oscillations": generate_oscillations,
    "mackey_glass": generate_mackey_glass,
    "copying": generate_copying,
    "selective_copying": generate_selective_copying,
    "induction": generate_induction,
    "parity": generate_parity,
    "waiting_digits": load_waiting_digits,
}

__all__ = [
    "TASKS",
    "PackedSplit",
    "Split",
    "Task",
    "check_split",
    "eval_batches",
    "from_arrays",
    "from_events",
    "generate_copying",
    "generate_induction",
    "generate_listops",
    "generate_mackey_glass",
    "generate_oscillations",
    "generate_parity",
    "generate_pathfinder",
    "generate_selective_copying",
    "inputs_alone",
    "load_arrays",
    "load_csv",
    "load_digits",
    "load_events",
    "load_japanese_vowels",
    "load_ppg_dalia",
    "load_instrument",
    "load_lorenz_spikes",
    "load_lorenz_states",
    "load_prepared",
    "load_spoken_digits",
    "load_stand_in",
    "load_waiting_digits",
    "load_wav_folder",
    "load_uea",
    "num_rows",
    "pack",
    "take",
    "train_batch",
    "train_rows",
]
