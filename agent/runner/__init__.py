"""The agent at work: commands in, the operation machine, the journal, the drivers' verbs, reports out.

Rules kept here: a new state is in the journal before its effects begin; one loop drives all, and what it awaits it can
give up; what the keeper shows outranks what the journal says. Left out: deciding (`agent.core`), the wire (the link).
"""
