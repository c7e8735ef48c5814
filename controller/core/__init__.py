"""The pure core of the controller: values in, values out.

`planner` turns a request into a plan. `rollout` steps a plan from its first wave to its end: an event in, the next
state and the effects that the shell then owes out. `gate` decides on a wave; `invariants` says what must hold of
every state, whoever asks. Nothing here does I/O, reads a clock, draws a random number or knows the wire: time comes in
with each event, and every deadline is an instant in the state.
"""
