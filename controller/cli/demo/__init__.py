"""`instar demo`: the main job on this machine, as separate real processes, and the figures that prove it.

`fleet` starts the controller, the agents and the load client; `bundles` writes the releases of a small HTTP service;
`scenario` rolls them out through the public API; `receiver` collects the spans and `figures` adds up the requests.
Rules kept: everything goes through the commands and the API that operators use; whatever was started is stopped, by
its own process id. Left out: anything that a fleet of more than one machine would need.
"""
