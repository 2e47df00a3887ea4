"""Apps of Telex that the contract tests serve, and the probe that tells a test what happened inside."""
