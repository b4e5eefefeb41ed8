"""Where a registered version comes from, and what was decided about it: plain records of what the registry holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Who or what decided what, when and why."""

    what: str  # a few words: promoted, rolled back, refused, ...
    by: str
    why: str
    at: str  # ISO 8601, UTC

    @property
    def sentence(self) -> str:
        return f"{self.at}: {self.what} by {self.by}. {self.why}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One version of the chain, and what is known of how it came to be."""

    uri: str  # models:/name/7
    source: str | None = None  # of the version that it was made from; None: it was not made by secateur
    is_copy: bool = False  # of its source, unchanged
    copied_from: str | None = None  # a version of another registry
    method: str | None = None
    asked: str | None = None
    rejected: str | None = None  # why it did not pass its gate; it was registered all the same
    plan_digest: str | None = None  # SHA-256 of the plan
    weights_digest: str | None = None
    dataset: str | None = None
    data_digest: str | None = None
    run_id: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()
    note: str = ""  # what is missing
