"""`make fuzz`: feed each decoder mutated input for a while; `--minutes` for all of them together, hours if you like.

Coverage-guided by atheris (libFuzzer), a child process per target, with bounds on memory and on the time of one input. An input that
breaks a target is kept in `fuzz/found/TARGET/`, where the unit tests run it for ever after. Corpora stay in `.linkspan-fuzz/`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
STATE = ROOT / ".linkspan-fuzz"
MEMORY = 1024
"""MiB that a target may use; the interpreter with all its modules takes about 150."""
ONE_INPUT = 10
"""Seconds that one input may take."""


def main() -> int:
    """Run the targets one after the other and say what was found."""
    from fuzz.seeds import DICTIONARY, SEEDS  # noqa: PLC0415 - the child loads its modules under instrumentation

    options = _options(list(SEEDS))
    if find_spec("atheris") is None:
        sys.stdout.write("not run: fuzz: atheris is not installed here (its wheels are for some Pythons only): make fuzz installs it\n")
        return 2
    results: list[dict[str, object]] = []
    seconds = max(5, int(options.minutes * 60 / len(options.targets)))
    for target in options.targets:
        corpus = STATE / target
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(SEEDS[target]):
            (corpus / f"seed-{number}").write_bytes(seed)
        words = STATE / "words.txt"
        words.write_text("".join(f'"{word}"\n' for word in DICTIONARY))
        results.append(_run(target, corpus, words, seconds))
    found = sum(not result["holds"] for result in results)
    (STATE / "latest.json").write_text(json.dumps(results, indent=1))
    sys.stdout.write(f"{len(results) - found} passed, {found} failed\n")
    return 1 if found else 0


def _options(targets: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="for all targets together (default 2)")
    parser.add_argument("--targets", nargs="+", choices=targets, default=targets, help="only these")
    return parser.parse_args()


def _run(target: str, corpus: Path, words: Path, seconds: int) -> dict[str, object]:
    """Fuzz one target in a child process."""
    found = HERE / "found" / target
    found.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    command = [
        *(sys.executable, "-m", "fuzz.child", target, str(corpus)),
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY}",
        f"-timeout={ONE_INPUT}",
        f"-artifact_prefix={found}/",
        f"-dict={words}",
        "-max_len=70000",
        "-print_final_stats=1",
    ]
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    )
    numbers = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
    kept = sorted(path.name for path in set(found.iterdir()) - before)
    if not any(found.iterdir()):
        found.rmdir()
    holds = done.returncode == 0
    tried, peak = int(numbers.get("number_of_executed_units", 0)), int(numbers.get("peak_rss_mb", 0))
    sys.stdout.write(
        f"{'ok   ' if holds else 'FOUND'} {target:<12} {tried:>9,} inputs in {time.monotonic() - started:.0f} s, at most {peak} MiB\n"
    )
    if not holds:
        sys.stdout.write(done.stdout[-3000:] + done.stderr[-600:] + f"\nkept: {', '.join(kept) or 'nothing'} in {found}\n")
    sys.stdout.flush()
    return {"target": target, "inputs": tried, "peak_mib": peak, "holds": holds, "kept": kept}


if __name__ == "__main__":
    sys.exit(main())
