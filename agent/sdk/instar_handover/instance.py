"""One instance: takes what the keeper passes on and serves with one process, or with several.

Left out: how one process serves (`service`) and how several are one instance (`parent`).
"""

import os
from collections.abc import Callable, Sequence

from instar_handover import inheritance, parent, service


async def run(make_front: Callable[[], service.Front], address: str, workers: int, sockets: Sequence[str] = ()) -> None:
    """Serve until drained.

    Args:
        make_front: Makes what the connections speak; called in each process that serves.
        address: Served without a keeper.
        workers: Processes that serve.
        sockets: Names of the keeper's sockets to serve; all where none is named.

    Raises:
        inheritance.InheritanceError: The environment promises sockets that this process cannot take.
        parent.WorkersError: A worker ended before all were prepared, or all have ended.
    """
    inherited = inheritance.take(os.environ)
    if inherited is None:
        inherited = inheritance.Inheritance((inheritance.Listener("", inheritance.listen(address)),))
    else:
        inherited = inheritance.only(inherited, sockets)
    if workers > 1 and inherited.parent is None:
        await parent.run(inherited, workers)
    else:
        await service.run(make_front(), inherited)
