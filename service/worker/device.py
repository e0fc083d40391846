"""What there is to compute on."""

import os
import platform
import re
from pathlib import Path

import torch

from service.storage.workers import Device

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def slots(wanted: str, n_workers: int | None) -> list[str]:
    """Returns the device of each worker of a machine: its GPUs in turn where there are some.

    Args:
        wanted: What `detect` takes.
        n_workers: How many workers; one per GPU, else one, if absent.

    Raises:
        ValueError: The device is not there.
    """
    n_gpus = torch.cuda.device_count() if wanted == "auto" else 0
    n_workers = max(1, n_gpus) if n_workers is None else n_workers
    if n_gpus:
        return [f"cuda:{slot % n_gpus}" for slot in range(n_workers)]
    return [detect(wanted).device] * n_workers if n_workers else []


def detect(wanted: str, n_devices: int | None = None) -> Device:
    """Returns the device to use.

    A CPU counts as many devices as it has cores for this process. Who asks for no GPU by its number may have
    all of them, and computes on the first unless a fit asks for more.

    Args:
        wanted: `auto` for GPUs where there are some, `cpu`, `cuda`, or `cuda:1`.
        n_devices: How many of them a fit may have; all unless given.

    Raises:
        ValueError: It is not there.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        n_cores = len(os.sched_getaffinity(0))
        return Device("cpu", _cpu_name(), _memory_bytes(), n_devices or n_cores)
    if re.fullmatch(r"cuda(:\d+)?", wanted) is None:
        raise ValueError(f"there is no device {wanted!r}; use auto, cpu, cuda or cuda:1")
    index = int(wanted.partition(":")[2] or 0)
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise ValueError(
            f"there is no {wanted}: torch sees {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    properties = torch.cuda.get_device_properties(index)
    n_there = 1 if ":" in wanted else torch.cuda.device_count()
    if n_devices is not None and n_devices > n_there:
        raise ValueError(f"there are no {n_devices} devices {wanted}, but {n_there}; lower worker_devices")
    return Device(f"cuda:{index}", properties.name, properties.total_memory, n_devices or n_there)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    """Returns the machine's memory, or the container's share of it."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.exists() else "max"
    return physical if limit == "max" else min(physical, int(limit))
