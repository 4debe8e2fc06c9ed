"""Linkspan broken on purpose: `python -m proof.mutants --resume FILE --out SUMMARY.json`, or `--only NAME ...` to look at some.

Each patch in `tests/mutants` is applied to a copy of the source, and the test that it names has to fail there. Before that all these
tests have to pass on the code as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.mutants.patches import Patch, all_patches, durable_files
from tests.mutants.trial import AT_ONCE, Verdict, on_clean_code, tried

if TYPE_CHECKING:
    from collections.abc import Sequence


def digest(patch: Patch) -> str:
    """Return what tells a patch from the same one after a change."""
    return hashlib.blake2b(patch.path.read_bytes(), digest_size=8).hexdigest()


def kept(resume: Path | None) -> dict[str, Verdict]:
    """Return the verdicts of an interrupted proof, by the patches' digests."""
    if resume is None or not resume.exists():
        return {}
    entries = map(json.loads, resume.read_text(encoding="utf-8").splitlines())
    return {entry.pop("digest"): Verdict(**entry) for entry in entries}


def prove(patches: Sequence[Patch], resume: Path | None) -> list[Verdict]:
    """Try what has no verdict yet; report and keep each as it comes."""
    done, digests = kept(resume), {patch: digest(patch) for patch in patches}
    left = [patch for patch in patches if digests[patch] not in done]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        trials = {pool.submit(tried, patch): patch for patch in left}
        for count, trial in enumerate(as_completed(trials), len(patches) - len(left) + 1):
            patch, verdict = trials[trial], trial.result()
            done[digests[patch]] = verdict
            ended = "caught" if verdict.caught else "not run" if verdict.skipped else "SURVIVED"
            print(f"[{count}/{len(patches)}] {ended:8} {verdict.seconds:5.1f} s  {verdict.name}: {verdict.killer}", flush=True)
            if not verdict.caught:
                print(f"    {verdict.said}", flush=True)
            if resume is not None:
                with resume.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"digest": digests[patch], **asdict(verdict)}) + "\n")
    return [done[digests[patch]] for patch in patches]


def summary(verdicts: Sequence[Verdict], patches: Sequence[Patch], clean: str) -> dict[str, Any]:
    """Return what was tried and what was found, as a row of the proof."""
    broken = {file for patch in patches for file in patch.files}
    caught = [verdict for verdict in verdicts if verdict.caught]
    skipped = [verdict.name for verdict in verdicts if verdict.skipped]
    survived = [{"name": verdict.name, "said": verdict.said} for verdict in verdicts if not (verdict.caught or verdict.skipped)]
    files = len(set(durable_files()) & broken)
    text = f"{len(caught)} of {len(verdicts)} mutants caught, in {files} of {len(durable_files())} files of the durable path"
    return {
        "tried": text + (f", {len(skipped)} not run" if skipped else ""),
        "violations": len(survived),
        "found": survived,
        "not_run_here": skipped,
        "fails_on_clean_code": clean,
        "mutants": {verdict.name: {"killer": verdict.killer, "seconds": verdict.seconds} for verdict in verdicts},
        "holds": bool(caught) and not survived and not clean,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options; exit with 1 when a mutant survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="just these")
    parser.add_argument("--resume", type=Path, help="a file of verdicts, read and appended to")
    parser.add_argument("--out", type=Path, help="where the JSON summary goes")
    options = parser.parse_args(arguments)
    patches = all_patches()
    unknown = set(options.only or ()) - {patch.name for patch in patches}
    if unknown:
        parser.error(f"there is no mutant '{min(unknown)}': they are the patches in tests/mutants")
    patches = [patch for patch in patches if options.only is None or patch.name in options.only]
    print("Running the tests that kill them on the code as it is.", flush=True)
    clean = on_clean_code(patch.killer for patch in patches)
    print(clean or "They pass.", flush=True)
    found = summary(prove(patches, options.resume), patches, clean)
    text = json.dumps(found, indent=2)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(f"{found['tried']}; {'holds' if found['holds'] else 'BROKEN'}")
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
