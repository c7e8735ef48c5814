"""A host: answers each HTTP request with what its module `billing.rules` says; two threads call it all the time."""

import asyncio
import threading
import time

from instar_handover import asyncio_server, connection, module_cell, module_host

CALL_SECONDS = 0.002  # so that a swap meets a call that is inside
host = module_host.ModuleHost()
rules = host.cell("billing.rules")
mixed: list[str] = []


def call_all_the_time() -> None:
    """Call, and note what no call may see."""
    while True:
        try:
            with rules.enter() as module:
                time.sleep(CALL_SECONDS)
                seen = {module.VERSION, module.price(1)[0], rules.call("price", 1)[0]}
        except module_cell.ModuleMissingError:
            time.sleep(CALL_SECONDS)
        else:
            if len(seen) > 1:
                mixed.append(" ".join(seen))


def answer() -> str:
    """What the module says now: its version, a total, and what was mixed."""
    try:
        with rules.enter() as module:
            module.remember("bob", (module.total("bob") or 0) + 1)
            return f"{module.VERSION} {module.total('ann')} {len(mixed)}"
    except module_cell.ModuleMissingError:
        return "missing"


async def on_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, accepted: connection.Connection
) -> None:
    """Answer one request."""
    await reader.readuntil(b"\r\n\r\n")
    accepted.begin()
    body = answer()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close"
    writer.write(f"{head}\r\n\r\n{body}".encode())
    await writer.drain()
    accepted.end()


if __name__ == "__main__":
    for _ in range(2):
        threading.Thread(target=call_all_the_time, daemon=True).start()
    asyncio.run(asyncio_server.serve(on_connection, words={"module": host.answer}))
