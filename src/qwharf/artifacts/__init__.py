"""Verified weight files: the store, and the ways into it (import, pull, convert)."""
