"""Contracts as files: written for others to read, read from what others wrote, compared with what was promised.

Everything here works on protobuf descriptors and runs beside a service, never inside one.
"""
