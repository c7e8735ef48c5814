"""A seeded simulator: the real controller and the real agent cores in virtual time, on a network that fails.

`loop` is the event loop: one thread, virtual time, an order of callbacks drawn from the seed. `network` carries the
product's own messages and loses, repeats, delays and cuts them. `node` is a host: the real link and operation machine
over a disk and processes that live in memory. `checkers` say what must hold after every event. `world` puts them
together and draws the faults. The same seed gives the same trace, on any machine.
"""
