"""Labels of nodes: what the agent has, under what operators set.

Rules kept: an operator's word wins; an empty value of it takes a label of the agent away, for as long as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.core import errors, selector

LABELS_MAX = 64  # set by operators on one node: more than people can keep apart
LABEL_RULE = "key and value as in a label selector: letters, digits, dots, dashes and underscores; the value not empty"


def merged(own: Mapping[str, str], set_by_hand: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that count."""
    both = {**own, **set_by_hand}
    return {key: both[key] for key in sorted(both) if both[key] or key not in set_by_hand}


def changed(
    own: Mapping[str, str], before: Mapping[str, str], labels: Mapping[str, str], removed_keys: Iterable[str]
) -> dict[str, str]:
    """Return what operators have set once these labels are set and those taken away.

    Raises:
        InvalidRequestError: A label cannot be one, or there are too many.
    """
    for key, value in labels.items():
        _check(key, value)
    gone = tuple(removed_keys)
    for key in gone:
        _check(key, "any")
    after = {**before, **labels}
    for key in gone:
        after.pop(key, None)
        if key in own:
            after[key] = ""
    if len(after) > LABELS_MAX:
        raise _refusal("labels", str(len(after)), f"at most {LABELS_MAX} labels set by hand")
    return after


def _check(key: str, value: str) -> None:
    try:
        parsed = selector.parse(f"{key}={value}").requirements
    except errors.InvalidRequestError:
        parsed = ()
    if not value or len(parsed) != 1 or (parsed[0].key, parsed[0].values) != (key, frozenset({value})):
        raise _refusal(f"labels.{key}", value, LABEL_RULE)


def _refusal(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot set {field} to {value!r}: it must be {rule}", code="label_invalid", field=field, value=value, rule=rule
    )
