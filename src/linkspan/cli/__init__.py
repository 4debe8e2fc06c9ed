"""The command line: `linkspan --help`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; setup mistakes end with their sentence and exit code 2, not with a traceback."""
    from linkspan.cli.commands import cli  # noqa: PLC0415 - `import linkspan.cli` stays cheap
    from linkspan.errors import Error, SetupError  # noqa: PLC0415 - as above

    try:
        cli()
    except SetupError as error:
        sys.stderr.write(f"linkspan: {error}\n")
        sys.exit(2)
    except Error as error:
        sys.stderr.write(f"linkspan: {error.message} ({error.code.value})\n")
        sys.exit(1)
