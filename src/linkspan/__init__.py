"""Linkspan: the space between services."""
