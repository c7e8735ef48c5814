"""What nodes measure, kept for a while: windows in memory, and thinner in the store.

`collector` is what the engine calls. Behind it, `offsets` puts the times of a node's clock right, `intake` refuses what
is too much, `shelves` finds each node a place, `windows` holds the readings in `rings`, `comparison` and `figures` make
of them what the judge looks at, `keeping` stores them in the form of `chunks`, and `limits` says how much is kept. Left
out: what is made of the figures (`controller.core`), and where readings come from.
"""
