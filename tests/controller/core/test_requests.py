from __future__ import annotations

from datetime import timedelta

import pytest

from controller.core import errors, model, requests

pytestmark = pytest.mark.core


@pytest.mark.parametrize("strategy", model.Strategy)
def test_a_strategy_is_read_in_any_case_with_dashes_or_underscores(strategy: model.Strategy) -> None:
    texts = (strategy.value, strategy.value.lower(), f" {strategy.value.lower().replace('_', '-')} ")
    assert {requests.strategy(each) for each in (*texts, strategy)} == {strategy}


@pytest.mark.parametrize("text", ["", "yolo", "CANARY,ROLLING", "1"])
def test_the_text_of_no_strategy_is_refused_with_those_that_there_are(text: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match="IMMEDIATE, ROLLING, GRADUAL, CANARY, BLUE_GREEN") as refused:
        requests.strategy(text)
    assert (refused.value.code, refused.value.field, refused.value.value) == ("unknown_strategy", "strategy", text)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu"])
def test_a_window_may_be_in_any_zone_of_the_world(zone: str) -> None:
    window = model.Window(timedelta(hours=22), timedelta(hours=8), time_zone=zone)
    requests.check_policy(model.Policy(windows=(window,)))
