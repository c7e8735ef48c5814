"""The judge of a canary wave: what the figures of changed and of untouched nodes say of the new version."""
