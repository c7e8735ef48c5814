"""Errors that say by whose fault they are."""

from __future__ import annotations

from controller.core import errors


def test_a_source_of_metrics_that_gives_no_answer_says_who_has_to_mend_it_and_whether_to_ask_again() -> None:
    error = errors.SourceError(
        "cannot use it", code="partial", source="main", blame=errors.Blame.SOURCE, is_retryable=True
    )
    assert (error.blame, error.is_retryable, error.code) == (errors.Blame.SOURCE, True, "partial")
    assert (error.field, error.value) == ("source", "main")
