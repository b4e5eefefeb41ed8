"""Make torchvision importable on a CPU torch: its wheel's operators do not load there, so these stand in for them.

For benchmarks only. Import this module before torchvision, timm or transformers.
"""

import torch
from torch import Tensor

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width,"
    " int sampling_ratio, bool aligned) -> Tensor",
}


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression, best first, as the C++ operator does it."""
    order = scores.argsort(descending=True, stable=True)
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    shared = (torch.minimum(high, boxes[:, 2:]) - torch.maximum(low, boxes[:, :2])).clamp(min=0).prod(2)
    overlaps = shared > iou_threshold * (area[:, None] + area - shared)
    kept, gone = [], torch.zeros(len(boxes), dtype=torch.bool)
    for i in order.tolist():
        if not gone[i]:
            kept.append(i)
            gone |= overlaps[i]
    return torch.tensor(kept, dtype=torch.long)


def _register() -> torch.library.Library:
    library = torch.library.Library("torchvision", "DEF")
    for name, schema in _SCHEMAS.items():
        library.define(name + schema)
    from torchvision import _meta_registrations as fakes
    from torchvision import extension
    from torchvision.ops import roi_align

    library.impl("nms", _nms, "CPU")
    library.impl("roi_align", roi_align.__globals__["_roi_align"], "CPU")
    library.impl("roi_align", fakes.meta_roi_align, "Meta")
    extension._has_ops = roi_align.__globals__["_has_ops"] = lambda: True
    return library


_LIBRARY = None if torch.cuda.is_available() else _register()
