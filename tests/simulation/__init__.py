"""A seeded simulator: the real controller and the real agent cores in virtual time, on a network that fails.

`loop` is the event loop: one thread, virtual time, an order of callbacks drawn from the seed. `network` carries the
product's own messages and loses, repeats, delays and cuts them. `host` is a host: the real agent over a disk and
processes that live in memory (`keeper`). `life` is one controller after another. `people` ask for upgrades (`asking`)
of releases (`shelf`) and lead rollouts, `wardens` decide on nodes, both through `orders`; `storm` lets things fail.
`checkers` and `ledger` say what must hold after every event. `world` puts them together; `planted` has the bugs that
they must find. The same seed gives the same trace, on any machine.
"""
