"""One application of somebody else, and what it takes to add an operation or an outbox."""
