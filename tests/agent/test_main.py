"""What the agent's process is made of."""

import hashlib
import subprocess
import sys

USED = """
import agent.__main__, pathlib, sys
agent.__main__.main()
import hashlib
assert hashlib.sha256(b"instar").hexdigest() == sys.argv[1], "another hash"
assert "libcrypto" not in pathlib.Path("/proc/self/maps").read_text(), "OpenSSL is there"
"""


def test_the_agent_hashes_without_openssl_in_its_memory() -> None:
    subprocess.run([sys.executable, "-c", USED, hashlib.sha256(b"instar").hexdigest()], check=True)
