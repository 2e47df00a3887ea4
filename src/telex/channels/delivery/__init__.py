"""From a topic to the clients that follow it."""
