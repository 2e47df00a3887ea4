"""How a hub reads from its broker, and catches up after a loss."""
