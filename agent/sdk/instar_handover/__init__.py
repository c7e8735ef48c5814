"""What a component imports to be upgraded while it serves.

`asyncio_server.serve` is all that an asyncio service needs, `grpc_server.serve` a gRPC one; `python -m instar_handover
serve` runs ASGI and WSGI applications as they are. The hand-over protocol itself stands in `machine` (which word is
legal when) and `wire` (how it is said). Standard library only: uvicorn and grpc are the component's own.
"""
