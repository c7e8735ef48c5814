"""Faults: every crash point of every operation, disks that fail, power cuts, clock steps, bad versions.

`python -m tests.faults` runs them all and says how many held. Left out: faults of the network and of the controller,
which the simulator and the integration tests have.
"""
