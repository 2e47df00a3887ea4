"""People: the connections of each user, on this process and on all nodes."""
