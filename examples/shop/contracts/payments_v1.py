"""Contract of the payments service: money in, money back."""

from linkspan import Contract, Event, Message, ServiceContract, command, field

contract = Contract("shop.payments.v1")


class Charge(Message):
    order_id: str = field(1, key=True)
    pieces: int = field(2)
    cents: int = field(3)


class PayBack(Message):
    order_id: str = field(1, key=True)
    refund_id: str = field(2)
    cents: int = field(3)


class Receipt(Message):
    order_id: str = field(1)


class PaymentSettled(Event):
    order_id: str = field(1, key=True)
    pieces: int = field(2)
    cents: int = field(3)


class PaymentDeclined(Event):
    order_id: str = field(1, key=True)
    pieces: int = field(2)
    cents: int = field(3)


class PaidBack(Event):
    order_id: str = field(1, key=True)
    refund_id: str = field(2)
    cents: int = field(3)


class Payments(ServiceContract):
    charge = command(Charge, Receipt, answer="later")
    pay_back = command(PayBack, Receipt, answer="later")
