"""Rules over what the fleet measures: what is seen, and how a rule moves from state to state."""
