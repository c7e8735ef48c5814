"""Operations that cannot be begun: they end, and the node is free for the next one."""

from collections.abc import AsyncIterator

import pytest

from agent.core import model
from tests.agent import live_node

HELD = """\
name = "web"
version = "1.0.0"
driver = "held"
command = ["python", "service.py"]
[[sockets]]
name = "http"
"""


@pytest.fixture
async def a_node() -> AsyncIterator[live_node.LiveNode]:
    async with live_node.running() as made:
        yield made


async def test_a_change_by_a_method_that_the_driver_does_not_have_is_aborted_and_the_node_is_free(
    a_node: live_node.LiveNode,
) -> None:
    digest = a_node.publish(HELD, {"service.py": b"import time\ntime.sleep(3600)\n"})
    ended = await a_node.until_state(a_node.assign("1.0.0", digest, method=model.Method.HOT_SWAP), "ABORTED")
    assert (ended["fault"], ended["reason"]) == ("COMMAND", "method_not_supported")
    await a_node.until_state(a_node.assign("1.0.0", digest, method=model.Method.RESTART), "PERMANENT")
