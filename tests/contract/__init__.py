"""One body of tests over every server that Telex promises to run on."""
