"""The web side of the controller: events and alerts over HTTP, and whether it is there.

Rules kept here: off unless it is configured; nothing of a body is looked at before its sender is known; a request is
bounded in bytes and in time; every refusal is a JSON document with code, field, rule and message. Left out: what events
mean (`controller.engine`), and everything else that the API can do (`controller.rpc`).
"""
