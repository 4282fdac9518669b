"""What a class has decided about its numbers: versioned, handed to every rule as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rules.kinds import StoredWord

MILLION = 1_000_000  # every ratio, rate and threshold is an integer of millionths, so no order changes a digit


class Model(StoredWord):
    """How evidence becomes a score (Definition A)."""

    DECAYING_AVERAGE = "DECAYING_AVERAGE"
    SUCCESS_RATIO = "SUCCESS_RATIO"


@dataclass(frozen=True, slots=True)
class Policy:
    """One version of a class's policy; version 1 holds the defaults. Thresholds are in millionths."""

    version: int = 1
    model: Model = Model.DECAYING_AVERAGE
    recent_percent: int = 65  # p of DECAYING_AVERAGE(p), 1 to 99
    success_threshold: int = 600_000
    mastery_threshold: int = 800_000
    min_evidence: int = 3
    inactivity_days: int = 7  # 7, 14, 30 or 90
    extra_credit: bool = False  # whether a ratio above 1 is stored or refused


DEFAULT_POLICY = Policy()


def with_parts(policy: Policy, parts: Mapping[str, Any]) -> Policy:
    """The policy with some of its parts replaced; they come by name, a model also as its word."""
    model = parts.get("model")
    return replace(policy, **{**parts, "model": policy.model if model is None else Model(model)})
