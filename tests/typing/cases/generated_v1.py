"""A proto-first contract."""

from generated_pb import GetOrderRequest, OrderMoved, OrderReply

from linkspan import Contract, ServiceContract, event, query

contract = Contract("gen.orders.v1")


class OrderService(ServiceContract):
    get_order = query(GetOrderRequest, OrderReply)
    order_moved = event(OrderMoved)
