"""Two and four real processes, joined over loopback: one run, whatever happens to one of them."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import warnings

import jax
import numpy as np
import pytest
from tiny import TinySpiking, job_settings, one_device, tiny_task

from pspike_jax.training import fit, load, make_mesh
from pspike_jax.training.distributed import NOT_STARTED, start_processes
from pspike_jax.training.preemption import EXIT_CODE

ROOT = pathlib.Path(__file__).resolve().parents[1]
HEARTBEAT = 30  # seconds, as in tiny.py
# What a process says of another that has died: our note on a broken exchange, or JAX's runtime.
TOLD = ("most likely another process has ended", "another task died")
PROGRAM = [sys.executable, "-W", "error", "-W", "default:skipped the checkpoint"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def slurm(port, processes, process):
    """Return what srun would tell a process."""
    return {
        "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": str(processes),
        "SLURM_PROCID": str(process), "SLURM_LOCALID": str(process),
        "JAX_COORDINATOR_PORT": str(port),
    }


def start(workdir, processes=2, scheduler=None):
    """Start the processes of a job, of 4 virtual devices in all, by flags or as a scheduler."""
    port = free_port()
    environment = {
        "PYTHONPATH": str(ROOT),
        "PATH": "/usr/bin:/bin",
        "JAX_NUM_CPU_DEVICES": str(4 // processes),
        # All of them share what the first compiles.
        "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(workdir).parent / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
    return [
        subprocess.Popen(
            [*PROGRAM, str(ROOT / "tests" / "tiny.py"), str(workdir),
             *(["found"] if scheduler else [f"127.0.0.1:{port}", str(processes), str(process)])],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
            env=environment | (scheduler(port, processes, process) if scheduler else {}),
        )
        for process in range(processes)
    ]


def finish(job, status=0, timeout=240):
    """Wait for the processes of a job; return what they said, having seen how they ended."""
    said = [process.communicate(timeout=timeout)[1] for process in job]
    assert [process.returncode for process in job] == [status] * len(job), "\n".join(said)
    return said


def wait_for_lines(workdir, count, job):
    metrics = pathlib.Path(workdir) / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < count:
        assert all(process.poll() is None for process in job), finish(job)
        time.sleep(0.01)


def lines_of(workdir):
    """Return the metrics of a run without what clocks said."""
    lines = map(json.loads, (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def assert_close_runs(found, expected):
    """Losses agree to 1e-5 up to the first tie, where one spike more or less was drawn."""
    agreed = 0
    for a, b in zip(found, expected):
        assert a["step"] == b["step"]
        if a["train/firing_rate"] != b["train/firing_rate"]:
            break
        np.testing.assert_allclose(a["train/loss"], b["train/loss"], rtol=1e-5)
        agreed += 1
    # 4 steps a line, 768 draws a step, drives apart by less than 1e-5: a tie in 20 steps of two
    # runs has a probability below 0.2.
    assert agreed >= 5


@pytest.fixture(scope="module")
def single():
    """A run of one process and one device."""
    return fit(TinySpiking(), tiny_task(), job_settings(), mesh=one_device(), progress=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def pair(folder):
    """The folder of a whole run of two processes."""
    finish(start(folder / "pair"))
    return folder / "pair"


def test_two_processes_have_the_losses_of_one(pair, single):
    assert_close_runs(lines_of(pair), single.history)


def test_sigterm_to_one_process_stops_both_and_loses_nothing(folder, pair):
    """The second start finds the other process by what Slurm says, as JAX knows to read it."""
    job = start(folder / "stopped")
    wait_for_lines(folder / "stopped", 3, job)
    job[1].send_signal(signal.SIGTERM)
    finish(job, status=EXIT_CODE)
    said = finish(start(folder / "stopped", scheduler=slurm))
    assert "process 1 of 2: all have started" in said[1]
    assert lines_of(folder / "stopped") == lines_of(pair)


@pytest.mark.parametrize(("processes", "killed", "resumed"), [(4, 2, 4), (2, 0, 1)])
def test_a_killed_process_stops_the_others_and_the_job_resumes(
    folder, single, processes, killed, resumed
):
    """Of four processes one is killed, and four go on; of two the first one, and one goes on."""
    workdir = folder / f"killed_{processes}"
    job = start(workdir, processes)
    wait_for_lines(workdir, 7, job)  # past the checkpoint of step 20
    job[killed].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    said = [process.communicate(timeout=5 * HEARTBEAT)[1] for process in job]
    # Heartbeats are looked at every few seconds; loading the machine adds to that.
    assert time.monotonic() - begun < 4 * HEARTBEAT
    for number, (process, errors) in enumerate(zip(job, said)):
        assert process.returncode != 0
        assert number == killed or any(told in errors for told in TOLD), errors
    if resumed > 1:
        finish(start(workdir, resumed))
        history = lines_of(workdir)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "skipped the checkpoint")
            history = fit(
                TinySpiking(), tiny_task(), job_settings(), workdir=workdir, progress=False,
                mesh=make_mesh(devices=jax.devices()[:2]),
            ).history
    assert [line["step"] for line in history] == [line["step"] for line in single.history]
    assert_close_runs(history, single.history)


def test_one_process_reads_what_two_wrote(pair):
    result = load(
        TinySpiking(), tiny_task(), job_settings(), workdir=pair,
        mesh=make_mesh(data=2, fsdp=4),
    )
    assert int(result.state.step) == 60
    kernel = result.variables["params"]["encoder"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 2)}


@pytest.mark.parametrize("process", [0, 1])
def test_start_processes_says_who_waits_for_whom_and_gives_up(process):
    program = (
        "from pspike_jax.training.distributed import start_processes; "
        f"start_processes(coordinator='127.0.0.1:{free_port()}', processes=2, process={process},"
        " timeout=2, heartbeat=10)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
    )
    assert done.returncode == NOT_STARTED
    assert f"process {process} of 2 has waited 2 of 2 s for processes 0 to 1 at" in done.stderr
    assert "were all processes started" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 2, "process": 0}, r"\['coordinator'\] not given"),
        ({"coordinator": "here", "processes": 2, "process": 0}, "'here', expected HOST:PORT"),
        ({"coordinator": "here:1", "processes": 2, "process": 2}, "process is 2 of 2 processes"),
    ],
)
def test_start_processes_refuses_options_that_do_not_fit(options, message):
    given = {"coordinator": None, "processes": None, "process": None} | options
    with pytest.raises(ValueError, match=message):
        start_processes(**given, timeout=1, heartbeat=10)
