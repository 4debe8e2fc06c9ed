"""Contract of the inventory: what is on the shelf, and for whom it is put aside."""

from linkspan import Contract, Event, Message, ServiceContract, command, field, mapping, query, repeated

contract = Contract("shop.inventory.v1")


class GetShelf(Message):
    skus: list[str] = repeated(1)


class Shelf(Message):
    """Pieces on hand of each article that was asked for and is known."""

    on_hand: dict[str, int] = mapping(1)


class Release(Message):
    """Put back what was reserved for an order; the amounts travel along, so that nobody has to look them up again."""

    order_id: str = field(1, key=True)
    pieces: int = field(2)
    cents: int = field(3)


class Released(Message):
    order_id: str = field(1)


class StockReserved(Event):
    order_id: str = field(1, key=True)
    pieces: int = field(2)
    cents: int = field(3)


class StockReleased(Event):
    order_id: str = field(1, key=True)
    pieces: int = field(2)
    cents: int = field(3)


class Inventory(ServiceContract):
    get_shelf = query(GetShelf, Shelf)
    release = command(Release, Released, answer="later")
