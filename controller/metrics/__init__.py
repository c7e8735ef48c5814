"""What nodes measure, kept for a while: windows in memory, and thinner in the store.

`collector` is what the engine calls. Behind it, `offsets` puts the times of a node's clock right, `shelves` finds each
node a place, `windows` holds the readings, `figures` makes of them what the judge looks at, and `chunks` is the form
in which they are stored. Left out: what is made of the figures (`controller.core`), and where readings come from.
"""
