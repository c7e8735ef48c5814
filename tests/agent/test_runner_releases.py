"""How an instance is started: from its release, and from what the node's configuration says of its component."""

from pathlib import Path
from unittest import mock

from agent import depot
from agent.config import settings
from agent.runner import releases

CONFIG = """\
node_id = "n"
state_dir = "{0}"
run_dir = "/run/instar"
[sockets.web]
http = "127.0.0.1:1"
[users]
web = "www-data"
"""
MANIFEST = 'name = "web"\nversion = "1.0.0"\ndriver = "systemd"\ncommand = ["app.py"]\n'
DIGEST = f"sha256:{'0' * 64}"


def test_a_launch_says_the_addresses_and_the_user_that_the_configuration_has_for_the_component(tmp_path: Path) -> None:
    config = settings.parse(CONFIG.format(tmp_path), {})
    disk = depot.Depot(config.layout)
    disk.release_dir(DIGEST).mkdir(parents=True)
    (disk.release_dir(DIGEST) / "instar.toml").write_text(MANIFEST)
    known = releases.Releases(config, disk, mock.Mock(), mock.Mock())
    for component, addresses, user in (("web", {"http": "127.0.0.1:1"}, "www-data"), ("other", {}, "")):
        launch = known.launch(component, DIGEST, "one")
        assert (launch.addresses, launch.user) == (addresses, user)
