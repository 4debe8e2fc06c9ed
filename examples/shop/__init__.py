"""A shop of six services: orders in, goods and money out, nothing lost on the way."""
