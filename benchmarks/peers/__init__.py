"""The other side of each comparison, in the best settings we could find for it."""
