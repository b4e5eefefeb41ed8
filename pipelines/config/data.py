"""What a model learns from and is judged on."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from pipelines.config.section import Section
from pipelines.data import DATASETS
from pipelines.names import did_you_mean


class Images(Section):
    """How images become inputs of the model: its own preprocessing, or the accuracy means nothing."""

    size: int = Field(default=224, gt=0, description="image-folder: height and width of the inputs, in pixels")
    resize: int | None = Field(
        default=None,
        gt=0,
        description="image-folder: pixels of the shorter side before the middle is cut out; default: `size`",
    )
    channels: int = Field(default=3, description="image-folder: 3 (RGB) or 1 (grey)")
    mean: tuple[float, ...] = Field(
        default=(), description="per channel, taken off the pixels (0 to 1), e.g. [0.485, 0.456, 0.406]; default: none"
    )
    std: tuple[float, ...] = Field(default=(), description="per channel, what they are then divided by; goes with `mean`")
    transform: str | None = Field(
        default=None,
        description="image-folder: `module:Class` or `module:function` that, called with `transform_kwargs`, gives a "
        "function from a PIL image to a tensor [C, H, W]; instead of the fields above. `data.trust` must list it. Those of "
        "torchvision fit, e.g. `torchvision.transforms._presets:ImageClassification` with `crop_size: 224`",
    )
    transform_kwargs: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of `transform`")
    skip: int = Field(default=0, ge=0, description="image-folder: so many images may fail to decode; they are left out")
    workers: int = Field(default=4, ge=1, description="image-folder: threads that decode")

    @model_validator(mode="after")
    def _fit_together(self) -> "Images":
        if self.channels not in (1, 3):
            raise ValueError(f"channels are 1 or 3, not {self.channels}")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} entries and std {len(self.std)}; give one of each per channel")
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std must be above 0, not {list(self.std)}")
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"resize {self.resize} is smaller than size {self.size}, so there is nothing to cut out of")
        return self


def _default(section: type[Section], name: str) -> object:
    return section.model_fields[name].get_default(call_default_factory=True)


FOLDER, PARQUET, CODE = "image-folder", "parquet", "a name that is code"
BELONGS = {  # what says nothing of other data sets
    **dict.fromkeys(("validation", "test", "seed", "images.mean", "images.std"), tuple(DATASETS)),
    **dict.fromkeys(("label", "features", "shape"), (PARQUET,)),
    **{f"images.{name}": (FOLDER,) for name in Images.model_fields if name not in ("mean", "std")},
    "kwargs": (CODE,),
}


class Data(Section):
    """What the model is fine-tuned and judged on."""

    name: str = Field(
        default="digits",
        description="a registered data set: `digits`, `fashion-mnist`, `cifar10`, `cifar100`; one of your own: "
        "`image-folder`, `npz`, `parquet`; or `module:Class` (a LightningDataModule) or `module:function` (returns the "
        "loaders of train, validation and test), which `trust` must list",
    )
    path: str | None = Field(
        default=None,
        description="where it lies: a folder, a file, or `s3://bucket/key` or `s3://bucket/prefix` with credentials and "
        "endpoint from the environment. `npz`: a file with the arrays `x` [N, ...] and `y` [N, ...], and `x_validation`, "
        "`y_validation`, `x_test`, `y_test` for splits of its own; `parquet`: a file, or a folder, in which "
        "`train.parquet`, `validation.parquet`, `test.parquet` are its own splits; `image-folder`: a folder per class, or "
        "`train`, `val`, `test` folders of such; `cifar10`, `cifar100`: the binary archive, or the folder of what is in it; "
        "`fashion-mnist`: the folder of its four files. What is published is downloaded where no path is given, "
        "and checked by its SHA-256",
    )
    validation: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="fraction of the samples that the gate looks at, where the set has no such split of its own",
    )
    test: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="fraction of the samples that only the report looks at, where the set has no such split of its own; "
        "fashion-mnist and cifar have one",
    )
    seed: int = Field(default=0, ge=0, description="of the split")
    classes: int | None = Field(
        default=None,
        ge=1,
        description="how many classes there are, where the highest label does not tell; default: that plus one. "
        "Targets that are floats have none: they are numbers to be predicted",
    )
    label: str = Field(default="label", description="parquet: the column of targets: whole numbers, texts, or floats")
    features: tuple[str, ...] = Field(
        default=(), description="parquet: the columns of inputs, or one column of lists; default: all but the label"
    )
    shape: tuple[int, ...] = Field(default=(), description="parquet: of one input, e.g. [1, 8, 8]; default: flat")
    images: Images = Images()
    trust: tuple[str, ...] = Field(
        default=(),
        description="import paths from which `name` and `images.transform` may come, with all below them; naming one here "
        "means running its code",
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of a `name` that is code")
    cache_gb: float = Field(
        default=50, gt=0, description="size in GB that the cache of what came from s3:// keeps to; the oldest sets go first"
    )

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if ":" not in value and value not in DATASETS:
            raise ValueError(f"no data set {value!r}; {did_you_mean(value, DATASETS)}")
        return value

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "Data":
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave nothing to train on")
        return self

    @model_validator(mode="after")
    def _says_where(self) -> "Data":
        if ":" in self.name and self.path is not None:
            raise ValueError("a data set that is code takes no path; pass it in `kwargs`")
        if any(size < 1 for size in self.shape):
            raise ValueError(f"shape {list(self.shape)} has a side below 1")
        return self

    @model_validator(mode="after")
    def _says_nothing_in_vain(self) -> "Data":
        mine = CODE if ":" in self.name else self.name
        for field, owners in BELONGS.items():
            section, _, name = field.rpartition(".")
            holder = getattr(self, section) if section else self
            if mine not in owners and getattr(holder, name) != _default(type(holder), name):
                raise ValueError(f"{field} is for {' and '.join(owners)}, and means nothing to {self.name}; leave it out")
        return self

    def at(self, path: str) -> "Data":
        return self.model_copy(update={"path": path})


class Calibration(Section):
    """Images of the training split from which statistics are taken: scores, and the repair of what a cut took away."""

    samples: int = Field(
        default=1024,
        ge=0,
        description="so many, or the whole training split where it holds fewer (the run records how many); 0: none",
    )
    seed: int = Field(default=0, ge=0, description="of the choice of images")
