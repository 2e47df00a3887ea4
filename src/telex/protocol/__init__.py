"""The subprotocol ``telex.v1``: calls, notifies and answers in frames, on one connection."""
