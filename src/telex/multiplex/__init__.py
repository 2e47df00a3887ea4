"""Many routes on one socket: each open route is a virtual ASGI connection."""
