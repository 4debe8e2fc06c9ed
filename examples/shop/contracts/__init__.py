"""What the shop's services promise each other: one module, one package, no code of any service."""
