"""`linkspan contracts`: contracts as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["commands"]

commands = typer.Typer(
    help="Write contracts for other languages and tools, or read theirs; lock what was promised, and check that it holds.",
    no_args_is_help=True,
)

Target = Annotated[str, typer.Argument(help="The contract's module, a package of such modules, or an app.", metavar="MODULE[:APP]")]


@commands.command(
    epilog="Examples: linkspan contracts export hello, or: linkspan contracts export shop.contracts --out contracts --format proto,openapi"
)
def export(
    target: Target,
    out: Annotated[Path | None, typer.Option(help="The folder to write to; without it, files are printed.", metavar="DIR")] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format", help="Of proto, openapi, asyncapi, json-schema, descriptors; several with commas between them.", metavar="FORMS"
        ),
    ] = "proto",
) -> None:
    """Write contracts as .proto files, with what they import and a buf.yaml, and in other forms."""
    from linkspan.cli.contract_target import load_contracts, members_of_app  # noqa: PLC0415 - only here
    from linkspan.contracts.export import BESIDE, exported  # noqa: PLC0415 - only here

    contracts, app = load_contracts(target)
    members = None if app is None else members_of_app(app)
    files = exported(contracts, [each.strip() for each in form.split(",") if each.strip()], members)
    if out is None:
        _print(files, BESIDE)
    else:
        _write(files, out)


@commands.command(
    "import", epilog="Examples: linkspan contracts import orders.proto, or: linkspan contracts import protos --out gen, then import gen.…"
)
def import_(
    source: Annotated[Path, typer.Argument(help="A .proto file, or the folder that imports start from.", metavar="FILE|DIR")],
    out: Annotated[
        Path | None, typer.Option(help="The package folder to write to; without it, the contract is printed.", metavar="DIR")
    ] = None,
) -> None:
    """Make a typed contract from .proto files, with messages by Buf's protoc-gen-py. Works offline."""
    from linkspan.contracts.proto_first import imported  # noqa: PLC0415 - only here

    modules, contracts = imported(source)
    if out is None:
        typer.echo("\n\n".join(modules[path] for path in contracts), nl=False)
        return
    if out.resolve() == Path.cwd():
        raise SetupError(
            "The current folder would become a package and hide others of the same names: name a folder of its own with --out."
        )
    _write(modules, out)


def _print(files: Mapping[str, str | bytes], hidden: Collection[str]) -> None:
    binary = [path for path, content in files.items() if isinstance(content, bytes)]
    if binary:
        raise SetupError(f"'{binary[0]}' is binary: name a folder with --out.")
    shown = [content for path, content in files.items() if path not in hidden]
    typer.echo("\n".join(map(str, shown)), nl=False)


def _write(files: Mapping[str, str | bytes], out: Path) -> None:
    for path, content in files.items():
        file = out / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        except OSError as error:
            raise SetupError(f"'{file}' cannot be written ({error.strerror}): name another folder with --out.") from error
        typer.echo(f"Wrote {file}")
