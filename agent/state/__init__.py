"""What components keep over their versions: schemas, migrations, and the points that a node can go back to.

Rules kept here: a component's state and the schema that it has change places in one rename, so at every instant there
is one whole state of one schema; a migration works on a copy; what newer code wrote is never overwritten by a snapshot
unless the policy says `discard_writes`, and what has to give way is set aside, not removed. Left out: what is in it.
"""
