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


def detect(wanted: str) -> Device:
    """Returns the device to use.

    Args:
        wanted: `auto` for the first GPU where there is one, `cpu`, `cuda`, or `cuda:1`.

    Raises:
        ValueError: It is not there.
    """
    if wanted == "auto":
        wanted = "cuda:0" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return Device("cpu", _cpu_name(), _memory_bytes())
    if re.fullmatch(r"cuda(:\d+)?", wanted) is None:
        raise ValueError(f"there is no device {wanted!r}; use auto, cpu, cuda or cuda:1")
    index = int(wanted.partition(":")[2] or 0)
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise ValueError(
            f"there is no {wanted}: torch sees {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    properties = torch.cuda.get_device_properties(index)
    return Device(f"cuda:{index}", properties.name, properties.total_memory)


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
