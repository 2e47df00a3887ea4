"""``python -m benchmarks.channels``: fan-out, two nodes over brokers, a broker killed under load, and what is left."""
