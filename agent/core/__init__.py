"""The pure core of the agent: the operation machine, the session with the controller, and the nouns of both."""
