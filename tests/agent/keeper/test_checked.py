"""For how long a check of a release is good enough for a probe."""

import dataclasses

from agent.keeper import checked, errors, sources

SOURCE = sources.Source("web", "1.0.0", "sha256:1", "/releases/1", ("app",), {}, "", ())
REFUSAL = errors.RequestError("digest_mismatch", "cannot")


def test_a_check_is_fresh_for_a_minute_from_when_it_began() -> None:
    known = checked.Checked()
    assert not known.is_fresh(SOURCE, 100)
    known.note(SOURCE, 100, None)
    assert known.is_fresh(SOURCE, 100 + checked.FRESH_SECONDS - 1)
    assert not known.is_fresh(SOURCE, 100 + checked.FRESH_SECONDS)


def test_it_says_nothing_of_another_release_or_environment_but_of_any_command() -> None:
    known = checked.Checked()
    known.note(SOURCE, 100, None)
    assert known.is_fresh(dataclasses.replace(SOURCE, command=("probe",)), 100)
    for other in ({"digest": "sha256:2"}, {"release_dir": "/releases/2"}, {"environment_dir": "/environments/1"}):
        assert not known.is_fresh(dataclasses.replace(SOURCE, **other), 100)  # type: ignore[arg-type]  # names of fields


def test_a_check_that_fails_ends_what_one_before_it_had_said() -> None:
    known = checked.Checked()
    known.note(SOURCE, 100, None)
    known.note(SOURCE, 101, REFUSAL)
    assert not known.is_fresh(SOURCE, 102)


def test_only_so_many_are_remembered() -> None:
    known = checked.Checked()
    for number in range(checked.RELEASES_MAX + 1):
        known.note(dataclasses.replace(SOURCE, digest=f"sha256:{number}"), 100, None)
    assert not known.is_fresh(dataclasses.replace(SOURCE, digest="sha256:0"), 100)
    assert known.is_fresh(dataclasses.replace(SOURCE, digest=f"sha256:{checked.RELEASES_MAX}"), 100)
