"""What keeps the topics of a hub up to date with the broker: the one reader, and the replay of the past."""
