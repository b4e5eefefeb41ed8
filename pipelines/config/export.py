"""In which forms a registered version can be had."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.config.section import Section


class Export(Section):
    """The forms of each version that passed; one that cannot be made is reported and costs the candidate nothing."""

    formats: tuple[Literal["pt2", "onnx"], ...] = Field(
        default=("pt2",),
        description="`pt2` (torch.export) is what a version is stored as, so it is always made; `onnx` is a servable "
        "model of its own beside it, and needs secateur[onnx]",
    )
    opset: int = Field(default=18, ge=18, le=25, description="version of the ONNX operators")
    int8: bool = Field(
        default=False,
        description="also make an 8-bit ONNX form, calibrated with images of the training split; its accuracy is measured, "
        "and it is stored if that passes the gate",
    )
    int8_samples: int = Field(default=256, ge=1, description="images to calibrate the 8-bit form with, at most")

    @field_validator("formats", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _int8_is_made_from_onnx(self) -> "Export":
        if self.int8 and "onnx" not in self.formats:
            raise ValueError("int8 is made from the ONNX form; write `formats: [pt2, onnx]`")
        return self
