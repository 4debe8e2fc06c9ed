"""The shop's services: each a module, a database and, in the demo, a process of its own."""
