"""What a reader must know of the machine that numbers come from."""

import os
import platform
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from workbench.analysis.results import stamp
from workbench.processor import this_processor

__all__ = ["machine"]


def machine() -> dict[str, Any]:
    """What a reader must know of where the numbers come from."""
    names = ["OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "MKL_NUM_THREADS", "KMP_BLOCKTIME"]
    names += ["ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"]  # each can forbid instructions
    return {
        **stamp(),
        "interop_threads": torch.get_num_interop_threads(),
        "environment": {name: os.environ.get(name) for name in names},
        "cpu": _cpu(),
        "instructions": {"text": str(this_processor()), **asdict(this_processor())},
        "cpu_count": os.cpu_count(),
        "platform": platform.platform(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
