"""One target under atheris: `python -m fuzz.child TARGET CORPUS [libFuzzer options]`."""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["linkspan", "examples", "nats.protocol", "connectrpc"]):
    from fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until the time is over; a target that raises ends the process with its input kept."""
    logging.disable(logging.CRITICAL)
    one = TARGETS[sys.argv[1]]()
    atheris.Setup([sys.argv[0], *sys.argv[2:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
