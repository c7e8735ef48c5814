"""What is rolled out behind the judge in a test, and how it is judged: times are scaled, and nothing else.

Which requests fail is drawn by chance, one by one, in the service itself. So how often a verdict comes out right is a
matter of how many errors there are to compare: few in the past of the canary are the narrowest place. `judge_odds` says
of each trial beforehand how often that is.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trial:
    """Releases that fail so many requests, and the analysis that has to find out.

    Args:
        canary: Nodes that are changed first.
        untouched: Nodes that they are compared with.
        requests_per_second: Of each node.
        harmless_percent: Requests in a hundred that a harmless version fails, and the version before it.
        harmful_percent: Requests in a hundred that one fails that does harm.
        harm_percent: By how many percent more errors are harm that has to be excluded.
        past_seconds: How much of its own past each node is compared with.
        duration_seconds: Time before which nothing is promoted.
        inconclusive_seconds: Time after which nothing more is expected of the evidence.
    """

    canary: int
    untouched: int
    requests_per_second: float
    harmless_percent: float
    harmful_percent: float
    harm_percent: int
    past_seconds: float
    duration_seconds: float
    inconclusive_seconds: float

    @property
    def nodes(self) -> int:
        """All of them."""
        return self.canary + self.untouched

    @property
    def analysis(self) -> dict[str, object]:
        """The analysis as an operator writes it; doubt ends a rollout, so that it shows as what it is."""
        measure = {"kind": "RATIO", "series": "web_errors_total", "per": "web_requests_total"}
        return {
            "metrics": [{"name": "error rate", "measure": measure, "harm_percent": self.harm_percent}],
            "duration": f"{self.duration_seconds:g}s",
            "past": f"{self.past_seconds:g}s",
            "warm_up": "1s",
            "first_look": "3s",
            "false_alarms_per_1000": 1,
            "inconclusive": "FAIL",
            "inconclusive_after": f"{self.inconclusive_seconds:g}s",
            "unknown_after": "30s",
        }


# Five requests in a hundred, where there was one. Forty seconds of the past are 64 errors on the canary.
WHOLE = Trial(
    canary=2,
    untouched=4,
    requests_per_second=80.0,
    harmless_percent=1.0,
    harmful_percent=5.0,
    harm_percent=300,
    past_seconds=40.0,
    duration_seconds=15.0,
    inconclusive_seconds=180.0,
)
# For every run of the tests: more errors tell as much in less time.
SHORT = Trial(
    canary=2,
    untouched=3,
    requests_per_second=48.0,
    harmless_percent=5.0,
    harmful_percent=50.0,
    harm_percent=700,
    past_seconds=8.0,
    duration_seconds=5.0,
    inconclusive_seconds=90.0,
)
