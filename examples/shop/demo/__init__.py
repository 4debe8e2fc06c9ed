"""The demo behind `make demo`: real engines, faults put in, and a reconciliation at the end."""
