"""What comes to a service: deliveries are read, handled in the order of their keys, committed with their effects, and acknowledged."""
