"""What every benchmark line says beside its figures: the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sklearn
import torch


def processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def print_line(**fields: Any) -> None:
    """One JSON line: the fields, rounded to four digits, then where they were measured."""
    rounded = {
        name: float(f"{value:.4g}") if isinstance(value, float) and "likelihood" not in name else value
        for name, value in fields.items()
    }
    machine = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "active"),
        "load_average": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit_learn": sklearn.__version__,
    }
    print(json.dumps({**rounded, **machine}), flush=True)
