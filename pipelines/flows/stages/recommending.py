"""What a candidate would do to a registered model."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import pruning_core as pc
from pipelines import registry
from pipelines.architecture import load_module
from pipelines.config import Calibration as CalibrationSection
from pipelines.config import Candidate
from pipelines.config import Data as DataSection
from pipelines.config import Measure as MeasureSection
from pipelines.errors import ConfigError
from pipelines.flows.stages.job import read_data
from pipelines.flows.stages.preparing import check_data_fits
from pipelines.flows.stages.request import latencies_of, request_of
from pipelines.latencies import keep
from pipelines.steps.calibrate import calibration_of
from pipelines.steps.prune import example_batch


def recommend(
    model_uri: str,
    candidate: Candidate,
    section: DataSection | None,
    calibration: CalibrationSection,
    measure: MeasureSection,
    *,
    tracking_uri: str,
    trust: Sequence[str],
    factory: str | None = None,
) -> tuple[str, pc.Recommendation]:
    """What `candidate` would do to a registered model, and which version that is; nothing is made in the registry.

    MACs are those of one image, as in all tables.
    """
    data = read_data(section) if section is not None else None
    store = registry.open_store(tracking_uri)
    source = registry.resolve(store, model_uri)
    with tempfile.TemporaryDirectory() as folder:
        model = registry.fetch_model(store, source, Path(folder), trust=trust, factory=factory)
        request = request_of(measure, candidate)
        if data is None:
            batch, images = torch.zeros(request.images, *registry.input_shape(store, source)), None
        else:
            check_data_fits(model, data)
            batch, images = example_batch(data, request.images), calibration_of(data, calibration)
        latencies = latencies_of(measure, candidate)
        try:
            found = pc.recommend(load_module(model), batch, request.spec, images, latencies=latencies)
        except pc.SpecError as exc:
            if data is None and exc.where == "calibration":
                raise ConfigError(exc.what, "--criterion", "name data to score with: --data, --data-path") from exc
            raise
    if latencies is not None:
        keep(latencies)
    before, after = (replace(cost, macs=cost.macs // request.images) for cost in (found.before, found.after))
    return source.uri, replace(found, before=before, after=after)
