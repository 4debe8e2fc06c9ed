"""Contract of the shipping service: parcels out of the door."""

from linkspan import Contract, Event, Message, ServiceContract, field, query

contract = Contract("shop.shipping.v1")


class GetParcel(Message):
    order_id: str = field(1)


class Parcel(Message):
    order_id: str = field(1)
    pieces: int = field(2)


class ParcelShipped(Event):
    order_id: str = field(1, key=True)
    pieces: int = field(2)
    cents: int = field(3)


class Shipping(ServiceContract):
    get_parcel = query(GetParcel, Parcel)
