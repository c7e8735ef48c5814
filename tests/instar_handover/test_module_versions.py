import pytest

from instar_handover import module_versions


@pytest.mark.parametrize(
    ("comparators", "version", "is_held"),
    [
        (">=1.2.0,<2.0.0", "1.2.0", True),
        (">=1.2.0, <2.0.0", "1.10.0", True),
        (">=1.2.0,<2.0.0", "2.0.0", False),
        ("1.2.0", "1.2.0+build", True),
        ("==1.2.0", "1.2.1", False),
        (">1.0.0-rc.2", "1.0.0-rc.10", True),
        ("<1.0.0", "1.0.0-rc.1", True),
        (">1.0.0-1", "1.0.0-rc", True),
        ("<=1.0.0-rc", "1.0.0-rc.1", False),
    ],
)
def test_versions_are_compared_as_semver_says(comparators: str, version: str, is_held: bool) -> None:  # noqa: FBT001  # a column
    assert module_versions.holds(comparators, version) is is_held


@pytest.mark.parametrize(
    ("comparators", "version"), [("", "1.0.0"), (">=1.0", "1.0.0"), ("~1.0.0", "1.0.0"), ("1.0.0", "1")]
)
def test_what_is_no_version_is_refused(comparators: str, version: str) -> None:
    with pytest.raises(module_versions.VersionError, match=r"^cannot use"):
        module_versions.holds(comparators, version)
