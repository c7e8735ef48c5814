"""Errors that say by whose fault they are."""

from __future__ import annotations

from datetime import timedelta

from controller.core import errors


def test_a_source_of_metrics_that_gives_no_answer_says_who_has_to_mend_it_and_whether_to_ask_again() -> None:
    error = errors.SourceError(
        "cannot use it", code="partial", source="main", blame=errors.Blame.SOURCE, is_retryable=True
    )
    assert (error.blame, error.is_retryable, error.code) == (errors.Blame.SOURCE, True, "partial")
    assert (error.field, error.value) == ("source", "main")


def test_who_asks_too_much_is_told_when_to_come_back_and_may() -> None:
    found = errors.ExhaustedError(
        "cannot take it", code="rate_limited", field="x", rule="less", retry_after=timedelta(1)
    )
    assert (found.retry_after, found.is_retryable, found.blame) == (timedelta(1), True, errors.Blame.CALLER)
