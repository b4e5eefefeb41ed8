"""What was decided about a version, where a person looks for it: in its tags and its description."""

import json
from datetime import UTC, datetime

from pipelines import lineage
from pipelines.origin import Decision
from pipelines.registry.store import Store, mlflow_errors

MAX_DESCRIPTION = 5000  # the column of MLflow's tables; SQLite takes more, PostgreSQL refuses it
HEADING = "\n\n## Decisions\n\n"
MAX_TAG = 50_000
CUT = "\n\n... (cut)"


def decide(what: str, by: str, why: str) -> Decision:
    return Decision(what=what, by=by, why=why, at=datetime.now(UTC).isoformat(timespec="seconds"))


def record(store: Store, name: str, version: int, decision: Decision) -> None:
    """Add a decision to a version: the short tag says the last, the long tag and the description say all."""
    with mlflow_errors("the decision cannot be recorded", f"{name} version {version}"):
        client, number = store.client, str(version)
        found = client.get_model_version(name, number)
        decisions = [*decisions_in(found.tags), decision]
        as_json = json.dumps([{"what": d.what, "by": d.by, "why": d.why, "at": d.at} for d in decisions], ensure_ascii=False)
        while len(as_json) > MAX_TAG:
            decisions = decisions[1:]
            as_json = json.dumps([{"what": d.what, "by": d.by, "why": d.why, "at": d.at} for d in decisions])
        client.set_model_version_tag(name, number, lineage.TAG_DECISIONS, as_json)
        client.set_model_version_tag(name, number, lineage.TAG_PROMOTION, f"{decision.what} {decision.at[:10]}")
        text = (found.description or "").partition(HEADING)[0]
        client.update_model_version(name, number, described(text, [d.sentence for d in decisions]))


def decisions_in(tags: dict[str, str]) -> tuple[Decision, ...]:
    try:
        return tuple(Decision(**raw) for raw in json.loads(tags.get(lineage.TAG_DECISIONS, "[]")))
    except (ValueError, TypeError):
        return ()  # somebody else's tag of that name


def described(text: str, sentences: list[str], limit: int = MAX_DESCRIPTION) -> str:
    """The description with its decisions, the latest first, in at most `limit` characters.

    The oldest decisions go first (the tag keeps them), then the end of the text; the first sentence always stays.
    """
    lines = [f"- {' '.join(sentence.split())[:600]}" for sentence in reversed(sentences)]
    shown = lines[:1]
    for line in lines[1:]:
        if len(text) + len(HEADING) + len("\n".join([*shown, line])) > limit:
            break
        shown.append(line)
    end = HEADING + "\n".join(shown) if shown else ""
    return fitted(text, limit - len(end)) + end


def fitted(text: str, limit: int = MAX_DESCRIPTION) -> str:
    """`text`, cut at the end of a line so that it is no longer than `limit`."""
    if len(text) <= limit:
        return text
    head = text[: max(0, limit - len(CUT))]
    return head[: head.rfind("\n")] + CUT if "\n" in head else head + CUT
