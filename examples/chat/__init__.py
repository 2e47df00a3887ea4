"""A chat with rooms: ``telex run examples.chat.app:app``, or ``scripts/demo``."""
