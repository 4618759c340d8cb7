"""Can anything spoil a run? Kills it at random moments, and compares with an undisturbed one.

    python -m benchmarks.robust [--kills 40] [--seed 0] [--out DIR] [--json]

A short run is killed (SIGKILL) at random moments, between its start and its end, and resumed each
time. Every third time the newest checkpoint is damaged too: cut short, or a bit of it flipped. Then
the same with a limit on the size of files (as a full disk), and with SIGTERM. Metrics and weights
must be identical to the last bit. Ends with status 1 when they are not.

`--out DIR` keeps the folders; started again, it goes on with as many kills more.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minires.train.checkpoint import NEWEST, PREVIOUS

__all__ = ["Case", "damage", "difference", "main", "start"]

OPTIONS = ("--model", "wide_resnet10_1", "--limit", "500", "--batch-size", "32", "--epochs", "4")
SAVE_EVERY = 0.1  # seconds
SMALL = 20_000  # bytes: less than a checkpoint


def start(folder: Path, *options: str, limit: int | None = None) -> subprocess.Popen[str]:
    """A process that begins the run in `folder`, or resumes it; `limit` is of file sizes, bytes."""
    if (folder / "config.json").exists():
        what: tuple[str, ...] = ("--resume", str(folder))
    else:  # killed before it had begun
        shutil.rmtree(folder, ignore_errors=True)
        what = (*options, "--save-every", str(SAVE_EVERY), "--out", str(folder))

    def confine() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "minires", "train", *what, "--quiet"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, preexec_fn=confine, **pipes)


def finish(folder: Path, *options: str) -> float:
    """Run to the end; returns the seconds that took. Raises RuntimeError with what it printed."""
    begun = time.perf_counter()
    process = start(folder, *options)
    _, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{folder}: status {process.returncode}: {err}")
    return time.perf_counter() - begun


def damage(folder: Path, how: str) -> bool:
    """Cut short the newest checkpoint, or flip a bit of it; False when it is the only one."""
    newest = folder / NEWEST
    if not (newest.exists() and (folder / PREVIOUS).exists()):
        return False
    raw = bytearray(newest.read_bytes())
    if how == "truncate":
        raw = raw[: len(raw) * 2 // 3]
    else:
        raw[len(raw) // 2] ^= 1
    newest.write_bytes(raw)
    return True


def difference(folder: Path, whole: Path) -> list[str]:
    """The files in which a run differs from the undisturbed one."""
    names = ("metrics.jsonl", "last.safetensors", "best.safetensors")
    return [name for name in names if (folder / name).read_bytes() != (whole / name).read_bytes()]


class Case:
    """A run in `folder` that is disturbed, beside the undisturbed one in `whole`."""

    def __init__(self, root: Path, rng: random.Random, *options: str) -> None:
        self.whole, self.rng, self.options = root / "whole", rng, options or OPTIONS
        if not (self.whole / "seconds.txt").exists():
            seconds = finish(self.whole, *self.options)
            (self.whole / "seconds.txt").write_text(str(seconds))
        self.seconds = float((self.whole / "seconds.txt").read_text())
        self.root = root

    def kill(self, count: int, say: Callable[[str], None]) -> dict[str, int]:
        """Kill `count` runs or resumed runs; a run that ended is followed by a new one."""
        found = {"kills": 0, "damaged": 0, "runs": 0, "different": 0}
        folder = self.root / "killed"
        while found["kills"] < count:
            process, begun = start(folder, *self.options), time.perf_counter()
            try:
                process.communicate(timeout=self.rng.uniform(0.2, 1.0) * self.seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                found["kills"] += 1
                if found["kills"] % 3 == 0:
                    how = self.rng.choice(["truncate", "flip"])
                    found["damaged"] += damage(folder, how)
                continue
            # what was left of it took less: the next moments come earlier
            self.seconds = min(self.seconds, time.perf_counter() - begun)
            self._end(folder, process.returncode, found, say)
        if folder.exists():
            finish(folder, *self.options)
            self._end(folder, 0, found, say)
        return found

    def _end(
        self, folder: Path, status: int, found: dict[str, int], say: Callable[[str], None]
    ) -> None:
        wrong = ["status"] if status else difference(folder, self.whole)
        found["runs"] += 1
        found["different"] += bool(wrong)
        say(f"{found['kills']} kills, {found['damaged']} damaged, run {found['runs']}: {wrong}")
        shutil.rmtree(folder)

    def full_disk(self) -> list[str]:
        """Resume with room for less than a checkpoint, then with room; what went wrong."""
        folder = self.root / "full"
        finish(folder, *self.options, "--stop-after-epoch", "1")
        kept = (folder / NEWEST).read_bytes()
        process = start(folder, limit=SMALL)
        err = process.communicate()[1]
        wrong = []
        if process.returncode != 1 or err.count("\n") != 1 or "is whole: minires train" not in err:
            wrong.append(f"status {process.returncode}: {err}")
        if kept not in [
            (folder / n).read_bytes() for n in (NEWEST, PREVIOUS) if (folder / n).exists()
        ]:
            wrong.append("the checkpoint from before is gone")
        finish(folder)
        return wrong + difference(folder, self.whole)

    def terminate(self) -> list[str]:
        """SIGTERM in the middle, then resume; what went wrong."""
        folder = self.root / "terminated"
        process = start(folder, *self.options)
        while not (folder / NEWEST).exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        err = process.communicate()[1]
        wrong = [] if process.returncode == 130 and "saved; go on with" in err else [err]
        finish(folder)
        return wrong + difference(folder, self.whole)


def main(arguments: Sequence[str] | None = None) -> int:
    """Disturb, compare, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robust", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", metavar="DIR", help="where the runs are (a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as last line")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(given.out or temporary)
        case = Case(root, random.Random(given.seed))
        result: dict[str, Any] = case.kill(given.kills, print)
        for name, disturb in (("full_disk", case.full_disk), ("sigterm", case.terminate)):
            shutil.rmtree(root / {"full_disk": "full", "sigterm": "terminated"}[name], True)
            result[name] = disturb()
    print(json.dumps(result) if given.json else result)
    return int(bool(result["different"] or result["full_disk"] or result["sigterm"]))


if __name__ == "__main__":
    sys.exit(main())
