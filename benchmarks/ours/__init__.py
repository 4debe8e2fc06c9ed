"""Linkspan's side of each comparison: the public API, typed handlers, default middleware."""
