"""Apps of Telex that the contract tests serve, and the probe that reports what happened inside."""
