"""What the system says of its processor."""

import functools
from pathlib import Path


@functools.cache
def fields() -> dict[str, str]:
    """Returns the first processor's part of /proc/cpuinfo, by name; {} where there is none."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return {}
    first, _, _ = cpuinfo.read_text().partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def has(flag: str) -> bool:
    """Says whether it has units of this name, such as 'amx_bf16', as far as Linux says."""
    return flag in fields().get("flags", "").split()
