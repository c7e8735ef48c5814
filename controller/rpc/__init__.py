"""The wire of the controller: protobuf on the outside, the core's values on the inside, one module for each service.

Rules kept here: messages never travel inward; every refusal leaves as a typed status; no method answers a caller that
its policy does not name. Left out: what the answers are (`controller.engine`) and who listens (`controller.server`).
"""
