"""Traces: recorded first, emitted afterwards.

A span is derived from stored rows in the transaction that makes them terminal (`spans`), under identities that are
hashes of their keys (`ids`), and leaves through the outbox (`emit`). So any life of the controller can emit it, at
least once and byte for byte the same, and no span is ever open in memory.
"""
