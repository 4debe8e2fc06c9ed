"""Contracts as others read them: schemas and documents made from descriptors."""
