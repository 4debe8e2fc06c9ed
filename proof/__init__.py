"""The proof: each promise of the durable path, tried for long, with what was found in `latest.json`."""
