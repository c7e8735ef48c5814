from __future__ import annotations

import hypothesis
import pytest

# Tests share noisy machines: how long an example takes says nothing.
hypothesis.settings.register_profile("instar", deadline=None)
hypothesis.settings.load_profile("instar")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write what the code does now into the golden files and generated documents; then read the diff",
    )


@pytest.fixture
def is_rewriting(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--rewrite"))
