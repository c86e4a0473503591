"""Accelerators that programs are compiled for on a machine without them.

The compilers come with packages: `pip install "jax[tpu]"` brings libtpu, and `pip install
jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12`, of jax's own version, that for NVIDIA's.
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from pspike_jax.training import make_mesh

# What libtpu asks of its surroundings, of which there are none.
SURROUNDINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
H200 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 threads_per_core_limit: 2048
  core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 4800000000000 l2_cache_size: 62914560
  clock_rate_ghz: 1.98 device_memory_size: 150000000000 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536 }
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 } device_description_str: "NVIDIA H200"
"""


@dataclasses.dataclass(frozen=True)
class Chip:
    """What bounds the time of a program on a device, by its vendor's data sheet.

    Attributes:
      name: of the device.
      platform: as in engine_table.json.
      packages: modules that have its compiler, and how to install them.
      topology: arguments of `get_topology_desc` by the number of devices.
      bandwidth: bytes a second of main memory.
      link: bytes a second that a device sends to others.
      peak: operations a second of products, by precision.
    """

    name: str
    platform: str
    packages: tuple[tuple[str, ...], str]
    topology: Mapping[int, Mapping[str, str]]
    bandwidth: float
    link: float
    peak: Mapping[str, float]

    def least_seconds(self, moved: float, flops: Mapping[str, float], sent: float) -> float:
        """Return the least time that a program can take: memory, products or links alone."""
        products = sum(flops.get(kind, 0) / rate for kind, rate in self.peak.items())
        return max(moved / self.bandwidth, products, sent / self.link)


def _tpu(name, kind, bandwidth, link, peak):
    places = {n: {"topology_name": f"{kind}:2x2", "platform": "tpu"} for n in (1, 4)}
    # A product of full float32 precision is six of bfloat16.
    peaks = {"default": peak, "highest": peak / 6}
    packages = (("libtpu",), 'pip install "jax[tpu]"')
    return Chip(name, "tpu", packages, places, bandwidth, link, peaks)


CHIPS = {
    "v5e": _tpu("TPU v5e", "v5e", 819e9, 200e9, 197e12),
    "v6e": _tpu("TPU v6e", "v6e", 1640e9, 448e9, 918e12),
    "h200": Chip(
        "NVIDIA H200",
        "gpu",
        (
            ("jax_cuda12_plugin", "jax_plugins.xla_cuda12", "nvidia.cuda_nvcc"),
            "pip install jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12",
        ),
        {
            n: {"platform": "cuda", "topology": f"1x1x{n}", "target_config": H200}
            for n in (1, 4)
        },
        4800e9,
        450e9,
        {"default": 989e12, "highest": 67e12},
    ),
}


def missing(chip: Chip) -> str | None:
    """Say what has to be installed to compile for a chip; None where all is there."""
    modules, command = chip.packages
    lacking = [name for name in modules if not _found(name)]
    return f"{', '.join(lacking)} not installed: {command}" if lacking else None


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def mesh_of(chip: Chip, devices: int) -> Mesh:
    """Return a mesh of devices that are not there, all on the data axis.

    Args:
      chip: their kind.
      devices: 1 or 4.

    Raises:
      ModuleNotFoundError: what has its compiler is not installed.
    """
    lacking = missing(chip)
    if lacking is not None:
        raise ModuleNotFoundError(lacking)
    for name, value in SURROUNDINGS.items():
        os.environ.setdefault(name, value)
    described = topologies.get_topology_desc(**chip.topology[devices])
    return make_mesh(devices=list(described.devices)[:devices])


def versions() -> dict[str, str]:
    """Return the versions of jax and of the compilers that are installed."""
    found = {"jax": jax.__version__}
    for name in ("libtpu", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
