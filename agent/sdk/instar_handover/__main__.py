"""`python -m instar_handover serve asgi|wsgi MODULE:APP`: an existing application under the hand-over protocol."""

import argparse
import functools
import sys
from collections.abc import Sequence

from instar_handover import asgi_server, inheritance, instance, parent

FAILED = 1  # exit code of the contract


def main(argv: Sequence[str]) -> int:
    """Serve until drained; returns the exit code."""
    told = _parser().parse_args(argv)
    options = asgi_server.Options(
        application=told.application,
        is_wsgi=told.interface == "wsgi",
        http=told.http,
        certfile=told.certfile,
        keyfile=told.keyfile,
        has_access_log=told.access_log,
    )
    serve = functools.partial(instance.run, address=told.address, workers=told.workers, sockets=told.socket)
    code = 0
    try:
        asgi_server.run(options, told.app_dir, serve)
    except* (asgi_server.ApplicationError, inheritance.InheritanceError, parent.WorkersError) as group:
        code = FAILED
        for error in group.exceptions:
            sys.stderr.write(f"instar_handover: {error}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m instar_handover", description=__doc__)
    serve = parser.add_subparsers(required=True, metavar="serve").add_parser("serve", help="run an application")
    serve.add_argument("interface", choices=("asgi", "wsgi"))
    serve.add_argument("application", metavar="MODULE:APP", help="as uvicorn and gunicorn have it")
    serve.add_argument("--app-dir", default=".", metavar="D", help="where MODULE is found (here)")
    serve.add_argument("--workers", type=int, default=1, metavar="N", help="processes that serve (1)")
    serve.add_argument(
        "--address", default="127.0.0.1:8080", metavar="A", help="without a keeper: HOST:PORT or unix:PATH"
    )
    serve.add_argument("--socket", action="append", default=[], metavar="NAME", help="a socket of the manifest (all)")
    serve.add_argument("--certfile", default="", metavar="F", help="serve TLS with this certificate chain")
    serve.add_argument("--keyfile", default="", metavar="F", help="its private key, if it lies in another file")
    serve.add_argument("--http", choices=("auto", "h11", "httptools"), default="auto", help="uvicorn's parser (auto)")
    serve.add_argument("--no-access-log", dest="access_log", action="store_false", help="log no single requests")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
