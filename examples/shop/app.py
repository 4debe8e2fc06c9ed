"""The shop as one app: `linkspan run examples.shop.app:app` runs all of it, or one of its services a process."""

from examples.shop.services.inventory import inventory
from examples.shop.services.notifications import notifications
from examples.shop.services.orders import orders
from examples.shop.services.payments import payments
from examples.shop.services.shipping import shipping
from examples.shop.services.storefront import storefront
from linkspan import App

app = App(storefront, orders, inventory, payments, shipping, notifications)
