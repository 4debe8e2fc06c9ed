"""What modules generated from `.proto` files import for `linkspan/options.proto`: the options that are linked already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.options import OPTIONS_FILE

if TYPE_CHECKING:
    from protobuf import DescFile

__all__ = ["desc"]


def desc() -> DescFile:
    """Return the descriptor of `linkspan/options.proto`."""
    return OPTIONS_FILE
