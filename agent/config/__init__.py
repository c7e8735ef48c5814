"""What people write for a node: the agent's own file (`settings`), manifests (`manifest`), names and paths (`layout`).

Rules kept here: every unknown key is an error that names it; what comes out is checked and complete, so nothing behind
this edge looks at a default or a form again.
"""
