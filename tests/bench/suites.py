"""The models of the coverage benchmark, as data: suite -> name -> how to build it and what to feed it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.awkward import AWKWARD
from tests.bench import zoo_ops  # noqa: F401  (before anything that imports torchvision)
from tests.models import NETS, Case, normal, seeded


@dataclass(frozen=True, slots=True)
class Subject:
    """One model of a suite. Weights are random and seeded, so that two builds are equal."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]


def image(side: int, batch: int = 1) -> Callable[[], Any]:
    return normal((batch, 3, side, side))


def awkward() -> Mapping[str, Subject]:
    return {name: _of(case) for name, case in {**NETS, **AWKWARD}.items()}


def _of(case: Case) -> Subject:
    return Subject(case.build, case.inputs)


def timm() -> Mapping[str, Subject]:
    """One model of every family, the smallest of at least 3 million parameters, and some more of the large families."""
    lines = (Path(__file__).parent / "timm_models.txt").read_text().splitlines()
    rows = (line.split() for line in lines if line and not line.startswith("#"))
    return {name: _timm(name, int(side)) for _family, name, side in rows}


def _timm(name: str, side: int) -> Subject:
    import timm as zoo

    return Subject(seeded(lambda: zoo.create_model(name)), image(side))


def torchvision() -> Mapping[str, Subject]:
    """Every classification model, on images as small as the architecture takes."""
    from torchvision import models

    return {name: _vision(name) for name in models.list_models(module=models)}


_SIDES = {"inception_v3": 96, "googlenet": 64, "alexnet": 96, "squeezenet1_0": 64, "squeezenet1_1": 64, "maxvit_t": 224}


def _vision(name: str) -> Subject:
    from torchvision import models

    options: dict[str, Any] = {}
    side = _SIDES.get(name, 64)
    if name.startswith("vit"):
        side = 112 if name.endswith("14") else 96
        options["image_size"] = side
    if name in ("inception_v3", "googlenet"):  # without the auxiliary heads, which do not run in eval mode
        options |= {"init_weights": False, "aux_logits": False}
    return Subject(seeded(lambda: models.get_model(name, weights=None, **options)), image(side))


def dense() -> Mapping[str, Subject]:
    """Segmentation, detection, video and optical flow of torchvision."""
    from torchvision import models

    found: dict[str, Subject] = {}
    for module, inputs in (
        (models.segmentation, image(96, 2)),
        (models.detection, lambda: [image(128)()[0]]),
        (models.video, normal((1, 3, 8, 64, 64))),
        (models.optical_flow, normal((1, 3, 128, 128), (1, 3, 128, 128))),
    ):
        for name in models.list_models(module=module):
            found[name] = _dense(name, inputs)
    return found


def _dense(name: str, inputs: Callable[[], Any]) -> Subject:
    from torchvision import models

    options: dict[str, Any] = {"weights": None}
    if not name.startswith(_WHOLE):
        options["weights_backbone"] = None
    if any(kind in name for kind in ("rcnn", "retinanet", "fcos")):
        options |= {"min_size": 128, "max_size": 160}
    # Few candidates: the operators that stand in for torchvision's are slow. No threshold: random weights are unsure.
    if "rcnn" in name:
        options |= {"rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 20, "box_score_thresh": 0.0}
    elif any(kind in name for kind in ("retinanet", "fcos", "ssd")):
        options |= {"score_thresh": 0.0, "topk_candidates": 20, "detections_per_img": 20}
    if name.startswith("mvit"):
        inputs = normal((1, 3, 16, 224, 224))  # a fixed size, and the slowest models of all: allow 300 s
    elif name == "s3d":  # its last pooling is 7 x 7
        inputs = normal((1, 3, 16, 224, 224))
    detects = "min_size" in options or name.startswith("ssd")
    return Subject(seeded(lambda: models.get_model(name, **options)), (lambda: (inputs(),)) if detects else inputs)


_WHOLE = ("raft", "mvit", "mc3", "r2plus1d", "r3d", "s3d", "swin3d")  # no backbone with weights of its own


def transformers() -> Mapping[str, Subject]:
    from tests.bench.hugging import SUBJECTS

    return {name: Subject(build, inputs) for name, (build, inputs) in SUBJECTS.items()}


def exported() -> Mapping[str, Subject]:
    """A dozen programs that went through torch.export.save and load: graphs of ATen calls without their source."""
    wanted: dict[str, tuple[Callable[[], Mapping[str, Subject]], str]] = {
        "resnet18": (torchvision, "resnet18"),
        "densenet121": (torchvision, "densenet121"),
        "mobilenet_v2": (torchvision, "mobilenet_v2"),
        "efficientnet_b0": (torchvision, "efficientnet_b0"),
        "shufflenet_v2_x1_0": (torchvision, "shufflenet_v2_x1_0"),
        "googlenet": (torchvision, "googlenet"),
        "vit_b_32": (torchvision, "vit_b_32"),
        "swin_t": (torchvision, "swin_t"),
        "convnext_tiny": (torchvision, "convnext_tiny"),
        "fcn_resnet50": (dense, "fcn_resnet50"),
        "bert": (transformers, "bert"),
        "unet": (awkward, "unet"),
        "gqa_rotary": (awkward, "gqa_rotary"),
        "lstm_head": (awkward, "lstm_head"),
        "channel_shuffle_v2": (awkward, "channel_shuffle_v2"),
    }
    return {name: _exported(suite, of) for name, (suite, of) in wanted.items()}


def _exported(suite: Callable[[], Mapping[str, Subject]], name: str) -> Subject:
    import io

    def inputs() -> Any:
        return suite()[name].inputs()

    def build() -> nn.Module:
        example = inputs()
        args = () if isinstance(example, dict) else example if isinstance(example, tuple) else (example,)
        with torch.no_grad():
            program = torch.export.export(
                suite()[name].build(), args, example if isinstance(example, dict) else None, strict=False
            )
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        return torch.export.load(file).module()

    return Subject(build, inputs)


SUITES: Mapping[str, Callable[[], Mapping[str, Subject]]] = {
    "awkward": awkward,
    "torchvision": torchvision,
    "dense": dense,
    "timm": timm,
    "transformers": transformers,
    "exported": exported,
}
