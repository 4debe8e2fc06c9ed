"""`linkspan dead`: what services hold because it could not be handled."""

from __future__ import annotations

import typer

from linkspan.cli import dead_act, dead_look

__all__ = ["commands"]

commands = typer.Typer(help="Look at messages that could not be handled; correct, redrive or discard them.", no_args_is_help=True)
dead_look.add_to(commands)
dead_act.add_to(commands)
