"""The agent: carries out upgrades on its host and tells the controller what is; the keeper holds what must not fall."""

__version__ = "0.1.0"  # of the whole distribution; here, since asking its metadata costs the agent 2.5 MiB
