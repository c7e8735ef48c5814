"""Triggers: what is an occasion, what stands in its way, and what comes of it."""
