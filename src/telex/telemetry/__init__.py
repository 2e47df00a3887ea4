"""Telemetry: what an app counts, and how Prometheus and OpenTelemetry read it."""
