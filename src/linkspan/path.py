"""The ways an operation can travel."""

from __future__ import annotations

import enum

__all__ = ["Path", "Side"]


class Path(enum.Enum):
    """Which path carries a message. Brokered request-reply has no place here until it exists."""

    DIRECT = "direct"
    DURABLE = "durable"


class Side(enum.Enum):
    """Which end of a path a middleware runs at."""

    CLIENT = "client"
    SERVER = "server"
