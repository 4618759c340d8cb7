"""Runs Python with a sanitizer loaded before it, and finds the reports in what it printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

__all__ = ["reports", "sanitized"]

LIBRARIES = {"asan": ["libasan.so", "libubsan.so"], "tsan": ["libtsan.so"]}
OPTIONS = {
    # Python and its libraries leak on purpose; only what kernels do matters
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=0:report_bugs=1:ignore_noninstrumented_modules=1:exitcode=66",
}
REPORT = re.compile(
    r"^.*?(ERROR: AddressSanitizer: .*|WARNING: ThreadSanitizer: .*|runtime error: .*)$", re.M
)
ROOT = Path(__file__).resolve().parents[3]


def sanitized(
    flavour: str, *arguments: str, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run `python *arguments` in the repository with the sanitizers of "asan" or "tsan".

    The child's emulator.FLAVOUR is `flavour`. Give its result to `reports`.
    """
    preload = []
    for name in LIBRARIES[flavour]:
        asked = ["g++", f"-print-file-name={name}"]
        found = subprocess.run(asked, capture_output=True, text=True, check=True)
        preload.append(str(Path(found.stdout.strip()).resolve()))
    environment = {
        **os.environ,
        **OPTIONS,
        "MINIRES_EMULATOR": flavour,
        "LD_PRELOAD": ":".join(preload),
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(ROOT),
        "OPENBLAS_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def reports(child: subprocess.CompletedProcess[str]) -> list[str]:
    """The findings of the sanitizers, in order; [] when there are none."""
    return [match[1] for match in REPORT.finditer(child.stdout + child.stderr)]
