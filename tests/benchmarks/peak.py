"""Peak memory of one training step, measured in a process of its own.

    python tests/benchmarks/peak.py plain paper full

prints how many MB the process grew by, beyond model and data, during one step.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from workload import BATCH, build, make_batch, training_step  # noqa: E402


def resident() -> float:
    """The most memory that the process ever held, in MB (Linux)."""
    # Not getrusage, whose peak a child inherits from its parent.
    status = Path("/proc/self/status").read_text("ascii")
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1024


if __name__ == "__main__":
    name, variant, lengths = sys.argv[1:]
    model, data = build(variant, "small", name), make_batch(BATCH, lengths == "full")
    before = resident()
    training_step(name, model, data)
    print(resident() - before)
