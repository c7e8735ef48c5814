"""The keeper: holds the listening sockets and the processes of the components, and watches the agent.

Rules kept here: standard library only, one thread, one selector loop; nothing that a component, the agent or a client
does ends it or makes it wait; killing it ends no component, and the next keeper adopts what lives. Imports are few on
purpose: the whole process stays under 16 MiB. Left out: deciding what to upgrade, reading manifests, the network.
"""
