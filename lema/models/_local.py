"""What local models and their training share about the machine."""

import os


def cores() -> int:
    """Processors that this process may use: fewer than the machine has, in a container or when pinned."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
