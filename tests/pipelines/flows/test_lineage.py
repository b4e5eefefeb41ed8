"""The chain of a version, on the store that the compress flow left."""

import hashlib
import json
from pathlib import Path

from pipelines import registry, report
from pipelines.registry import Store
from tests.pipelines.flows.conftest import Flows


def test_the_chain_reaches_from_the_original_to_the_version(flows: Flows, tmp_path: Path) -> None:
    """The version that the flow made of a version that the flow made."""
    store = Store(flows.chained.uri)
    last = flows.chained.comparison.rows[1]
    links = registry.ancestry(store, f"models:/digits-resnet/{last.version}")
    assert [link.uri for link in links] == [f"models:/digits-resnet/{n}" for n in (1, 2, last.version)]
    original, first, second = links
    assert (original.source, original.plan_digest) == (None, None)
    assert first.source == original.uri
    assert second.source == first.uri
    assert second.metrics[last.metric] == last.test.value
    assert second.weights_digest == last.weights_digest
    assert second.asked == "0.4"
    assert first.data_digest
    assert second.data_digest == first.data_digest
    plan = Path(store.client.download_artifacts(second.run_id, "plan.json", str(tmp_path)))
    assert second.plan_digest == hashlib.sha256(plan.read_bytes()).hexdigest()
    text = report.ancestry_text(links)
    assert text.index(original.uri) < text.index(f"-> {first.uri}  pruned by") < text.index(second.plan_digest[:16])
    assert [link["uri"] for link in json.loads(report.ancestry_json(links))] == [link.uri for link in links]


def test_what_was_deleted_ends_the_chain_with_a_note(own_copy: str) -> None:
    store = registry.open_store(own_copy)
    copied = store.client.copy_model_version("models:/digits-resnet/2", "prod.digits")
    assert [(link.uri, link.is_copy) for link in registry.ancestry(store, "models:/prod.digits/1")] == [
        ("models:/digits-resnet/1", False),
        ("models:/digits-resnet/2", False),
        ("models:/prod.digits/1", True),
    ]
    store.client.delete_model_version("digits-resnet", "2")
    links = registry.ancestry(store, f"models:/prod.digits/{copied.version}")
    assert [(link.uri, link.note) for link in links] == [
        ("models:/digits-resnet/2", "deleted from the registry"),
        ("models:/prod.digits/1", ""),
    ]
    store.client.delete_run(store.client.get_model_version("digits-resnet", "3").run_id)
    assert registry.ancestry(store, "models:/digits-resnet/3")[-1].metrics  # a run in the bin can still be read
