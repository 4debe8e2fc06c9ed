"""Feeds hostile bytes to everything that reads what a network or a file brings."""
