"""One set of tests over every server that Telex supports."""
