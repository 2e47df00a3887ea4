"""What a message, a connection and an import cost: Telex beside its peers, by one command: ``python -m benchmarks``."""
