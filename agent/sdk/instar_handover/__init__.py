"""What a component imports to be upgraded while it serves.

`asyncio_server.serve` is all that an asyncio service needs. The hand-over protocol itself stands in `machine` (which
word is legal when) and `wire` (how it is said). Standard library only. Left out: HTTP; the component brings its own.
"""
