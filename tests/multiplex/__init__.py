"""Many routes on one socket."""
