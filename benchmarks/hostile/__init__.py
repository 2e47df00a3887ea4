"""What hostile clients do to a server, and to the others that it serves: ``python -m benchmarks.hostile``."""
