"""The agent: carries out upgrades on its host and tells the controller what is; the keeper holds what must not fall."""
