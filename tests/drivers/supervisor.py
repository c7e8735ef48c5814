"""A service manager of somebody else, as users of the driver `exec` have one: it holds a socket and runs programs.

    python supervisor.py CONTROL_SOCKET HOST:PORT

It is told one line: verb, instance, digest, directory, version, behaviour; and answers what it has to say.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass

STOP_SECONDS = 2.0


@dataclass
class Program:
    """One program, running or not."""

    digest: str
    directory: str
    version: str
    behaviour: str
    state: str = "prepared"
    process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self.process.pid if self.process and self.process.returncode is None else 0

    @property
    def shown_state(self) -> str:
        return "exited" if self.state == "active" and not self.pid else self.state


class Supervisor:
    """All programs."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._programs: dict[str, Program] = {}

    async def answer(self, line: str) -> str:
        verb, instance, *facts = line.split()
        if verb == "inspect":
            shown = self._programs.items()
            return "".join(f"{name} {each.digest} {each.pid} {each.shown_state}\n" for name, each in shown)
        if verb == "prepare":
            digest, directory, version, behaviour = facts
            self._programs.setdefault(instance, Program(digest, directory, version, behaviour))
        elif verb in ("activate", "resume_old"):
            await self._start(self._programs[instance])
        elif verb == "pause_old":
            await self._end(self._programs[instance], "paused")
        elif instance in self._programs:  # drain, abort
            await self._end(self._programs.pop(instance), "exited")
        return f"{verb} {instance} done\n"

    async def end(self) -> None:
        for each in self._programs.values():
            await self._end(each, "exited")

    async def _start(self, program: Program) -> None:
        program.state = "active"
        if program.pid:
            return
        descriptor = self._listener.fileno()
        take = f"exec 3<&{descriptor}; LISTEN_PID=$$ exec '{sys.executable}' app.py"
        program.process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            take,
            cwd=program.directory,
            env={**os.environ, "INSTAR_VERSION": program.version, "BEHAVIOUR": program.behaviour},
            pass_fds=(descriptor,),
        )

    async def _end(self, program: Program, state: str) -> None:
        program.state = state
        if program.process is None or not program.pid:
            return
        program.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(program.process.wait(), STOP_SECONDS)
        except TimeoutError:
            program.process.kill()
            await program.process.wait()


async def main(control: str, address: str) -> None:
    """Answer until told to end."""
    host, _, port = address.rpartition(":")
    made = Supervisor(socket.create_server((host, int(port)), backlog=128))

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write((await made.answer((await reader.readline()).decode())).encode())
            await writer.drain()
        writer.close()

    is_over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_over.set)
    server = await asyncio.start_unix_server(on_connection, control)
    await is_over.wait()
    server.close()
    await made.end()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
