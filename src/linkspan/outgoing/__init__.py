"""What leaves a service: messages are made, kept in the outbox with the work that they tell of, and taken to the broker."""
