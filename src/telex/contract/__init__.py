"""The contract of an app: its AsyncAPI document, the check between two versions of it, and types for clients."""
