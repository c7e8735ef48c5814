"""The controller: plans upgrades, carries rollouts out over the agents' streams, and answers operators and services."""
