"""What could not be handled: letters wait in the order of their keys, are tried again, and are redriven or discarded by people."""
