"""Programs of the fixtures, as a bundle has them; BEHAVIOUR says how a release misbehaves."""

SDK_SERVICE = '''
import asyncio, os, socket, threading

BEHAVIOUR = os.environ["BEHAVIOUR"]
if BEHAVIOUR == "crashes_at_start":
    raise SystemExit(3)

from instar_handover import asyncio_server


async def on_connection(reader, writer, accepted):
    while True:
        head = await reader.readuntil(b"\\r\\n\\r\\n")
        status = "503 Unready" if BEHAVIOUR == "never_ready" and accepted.is_probe else "200 OK"
        if not accepted.is_probe:
            accepted.begin()
        if head.startswith(b"GET /hang"):
            await asyncio.sleep(3600)
        is_last = accepted.is_probe or accepted.should_close
        body = f"{os.environ['INSTAR_VERSION']} {os.getpid()}"
        kept = "close" if is_last else "keep-alive"
        head = f"HTTP/1.1 {status}\\r\\nContent-Length: {len(body)}\\r\\nConnection: {kept}\\r\\n\\r\\n"
        writer.write((head + body).encode())
        await writer.drain()
        if not accepted.is_probe:
            accepted.end()
        if is_last:
            return


def hang():
    """Be a client of oneself whose request never ends."""
    with socket.socket(fileno=os.dup(3)) as own:
        caller = socket.create_connection(own.getsockname())
    caller.sendall(b"GET /hang HTTP/1.1\\r\\n\\r\\n")
    caller.recv(1)


if BEHAVIOUR == "never_drains":
    threading.Thread(target=hang, daemon=True).start()
asyncio.run(asyncio_server.serve(on_connection))
'''

LISTEN_FDS_SERVICE = """
import os, signal, socket

BEHAVIOUR = os.environ["BEHAVIOUR"]
if BEHAVIOUR == "crashes_at_start":
    raise SystemExit(3)
is_over = False


def on_term(*_):
    global is_over
    is_over = BEHAVIOUR != "never_drains"


signal.signal(signal.SIGTERM, on_term)
assert os.environ["LISTEN_PID"] == str(os.getpid())
listener = socket.socket(fileno=3)
listener.settimeout(0.05)
while not is_over:
    try:
        accepted, _ = listener.accept()
    except TimeoutError:
        continue
    with accepted:
        accepted.settimeout(5)
        try:
            while b"\\r\\n\\r\\n" not in (data := accepted.recv(4096)) and data:
                pass
            body = f"{os.environ['INSTAR_VERSION']} {os.getpid()}"
            status = "503 Unready" if BEHAVIOUR == "never_ready" else "200 OK"
            head = f"HTTP/1.1 {status}\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n"
            accepted.sendall((head + body).encode())
        except OSError:
            pass
"""

CONSUMER = """
import fcntl, os, signal, time

if os.environ["BEHAVIOUR"] == "crashes_at_start":
    raise SystemExit(3)
if os.environ["BEHAVIOUR"] == "never_drains":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
lock = open(os.environ["LOCKS"] + "/" + os.environ["INSTAR_VERSION"], "w")
fcntl.flock(lock, fcntl.LOCK_SH)
while True:
    time.sleep(60)
"""

NGINX = """#!/bin/sh
exec /usr/sbin/nginx -e stderr -p "$PWD/" -c "$PWD/nginx.conf" -g 'daemon off;'
"""

NGINX_CONFIGURATION = """
worker_processes 2;
error_log stderr notice;
pid {folder}/nginx-{version}.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  keepalive_timeout 0;  # idle connections are closed by a leaving worker: see docs/drivers/reload.md
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {address};
    location / {{ return {status} "{version} $pid"; }}
  }}
}}
"""

WSGI = """
import os, sys

if os.environ["BEHAVIOUR"] == "crashes_at_start":
    sys.exit(3)


def application(environment, start_response):
    status = "503 Unready" if os.environ["BEHAVIOUR"] == "never_ready" else "200 OK"
    body = f"{os.environ['INSTAR_VERSION']} {os.getpid()}".encode()
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]
"""

ASGI = """
import os, sys

if os.environ["BEHAVIOUR"] == "crashes_at_start":
    sys.exit(3)


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    status = 503 if os.environ["BEHAVIOUR"] == "never_ready" else 200
    body = f"{os.environ['INSTAR_VERSION']} {os.getpid()}".encode()
    headers = [(b"Content-Length", str(len(body)).encode()), (b"Connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""
