from typing import Any

from protobuf import Message

class GetOrderRequest(Message[Any]):
    def __init__(self, *, order_id: str = "") -> None: ...
    order_id: str

class OrderMoved(Message[Any]):
    def __init__(self, *, order_id: str = "") -> None: ...
    order_id: str

class OrderReply(Message[Any]):
    def __init__(self, *, order_id: str = "") -> None: ...
    order_id: str
