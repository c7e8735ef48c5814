"""The audit log: `chain` says how its rows hang together, `checking` what is wrong, `choosing` what is wanted of it."""
