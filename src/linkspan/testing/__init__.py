"""Public contract suites: what an adapter must pass, and what runs without one."""
