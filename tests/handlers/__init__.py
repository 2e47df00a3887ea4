"""The kinds of handler, over real sockets."""
