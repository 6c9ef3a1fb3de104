"""Run the chapters and the tests as if on other machines.

    python book/_tools/machines.py
    python book/_tools/machines.py old two --only book/15_umap.ipynb

A sum of floats depends on the order of its terms, and the order on the number
of threads and on the width of the processor's registers. Each setting below
makes this machine add as another one would, with the same versions of all
packages. What the book prints and the tests assert must not change.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = ["book", "tests"]
#: Every library's own number of threads.
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def numpy_without(pattern: str) -> str:
    """The extensions that NumPy found on this machine and is not to use.

    Args:
        pattern: a regular expression that their names match.

    Returns:
        A value for `NPY_DISABLE_CPU_FEATURES`.
    """
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return " ".join(name for name in found if re.match(pattern, name))


def threads(number: int) -> dict[str, str]:
    """The variables that set a number of threads."""
    return dict.fromkeys(THREADS, str(number))


AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": numpy_without("X86_V4|AVX512"),
    "NUMBA_CPU_NAME": "haswell",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
SSE = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "NPY_DISABLE_CPU_FEATURES": numpy_without(""),
    "NUMBA_CPU_FEATURES": "",
    "NUMBA_CPU_NAME": "generic",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
}
SETTINGS: dict[str, dict[str, str]] = {
    "one": threads(1),
    "two": threads(2),
    "numpy": threads(2) | {"NPY_DISABLE_CPU_FEATURES": numpy_without("")},
    "avx2": threads(2) | AVX2,
    "old": threads(1) | SSE,
}
X86 = ("avx2", "old")


def run(name: str, targets: list[str]) -> bool:
    """Run under one setting and print a line, and what failed.

    Args:
        name: of the setting.
        targets: notebooks, tests, or folders of them.

    Returns:
        Whether everything was the same.
    """
    started = time.monotonic()
    # One run a target: `book` has a `pytest.ini` of its own.
    runs = [pytest(target, SETTINGS[name]) for target in targets]
    minutes = (time.monotonic() - started) / 60
    failed = [done.stdout for done in runs if done.returncode]
    verdict = "DIFFERS" if failed else "same"
    counts = "; ".join(done.stdout.rstrip().split("\n")[-1] for done in runs)
    print(f"{name:5s} {verdict:7s} {minutes:3.0f} min  {counts}", flush=True)
    for said in failed:
        print(said, flush=True)
    return not failed


def pytest(
    target: str, setting: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run pytest on a target, with some variables set."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--nbval"]
    return subprocess.run(
        [*command, target, "--ignore=tests/benchmarks"],
        cwd=ROOT,
        env=os.environ | setting,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments; those of the process by default.

    Returns:
        The exit status: 1 if anything differs under any setting.
    """
    parser = argparse.ArgumentParser(
        description="Compare as if on other machines."
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="SETTING",
        help=f"of {', '.join(SETTINGS)} (default: all)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=EVERYTHING,
        metavar="TARGET",
        help="what pytest runs instead of all chapters and tests",
    )
    args = parser.parse_args(argv)
    if unknown := set(args.settings) - set(SETTINGS):
        parser.error(f"no such setting: {', '.join(sorted(unknown))}")
    names = args.settings or list(SETTINGS)
    if platform.machine().lower() not in ("x86_64", "amd64"):
        for name in [name for name in names if name in X86]:
            print(f"{name:5s} left out: it is for x86 processors")
        names = [name for name in names if name not in X86]
    return int(not all([run(name, args.only) for name in names]))


if __name__ == "__main__":
    sys.exit(main())
