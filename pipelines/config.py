"""One typed configuration: the YAML recipe, the CLI and the flow's form in the Prefect UI are all this.

A ratio is always the fraction REMOVED. Accuracies are fractions, 0 to 1. Unset fields take the default shown.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

import pruning_core as pc
from pipelines.data import DATASETS
from pipelines.environment import default_tracking_uri
from pipelines.errors import ConfigError
from pipelines.names import did_you_mean, nearest_name

MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[\w-]+)|/(?P<version>[1-9]\d*))")
ENGINE = pc.PruningSpec()  # its defaults are ours
ALIAS = re.compile(r"(?!v\d+$|latest$)[\w-]{1,255}")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Section):
    """The registered model to compress."""

    model: str = Field(description="`models:/name@alias` or `models:/name/3`; an alias is pinned to its version first")
    trust: tuple[str, ...] = Field(
        default=("pipelines.models",),
        description="import paths whose functions may be called to rebuild a registered model, with all below them; "
        "naming one here means running its code",
    )
    factory: str | None = Field(
        default=None, description="`package.module:function` for a version stored with weights but without its factory"
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of `factory`")

    @field_validator("model")
    @classmethod
    def _is_model_uri(cls, value: str) -> str:
        if not MODEL_URI.fullmatch(value):
            raise ValueError(f"{value!r} is no model of a registry; write models:/name@alias or models:/name/3")
        return value


class Data(Section):
    """What the model is fine-tuned and judged on."""

    name: str = Field(
        default="digits", description="a registered data set: `digits`, `fashion-mnist`, or `npz` for a file of your own"
    )
    path: str | None = Field(
        default=None,
        description="for `npz`: a file with the arrays `x` [N, ...] and `y` [N]; for `fashion-mnist`: the folder of its "
        "four files, by default that of the Debian package, else they are downloaded",
    )
    validation: float = Field(default=0.2, gt=0, lt=1, description="fraction of the images that the gate looks at")
    test: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="fraction of the images that only the report looks at; fashion-mnist has a test split of its own",
    )
    seed: int = Field(default=0, ge=0, description="of the split")

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in DATASETS:
            raise ValueError(f"no data set {value!r}; {did_you_mean(value, DATASETS)}")
        return value

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "Data":
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave nothing to train on")
        return self


class Candidate(Section):
    """One way to prune: a criterion, a ratio and how the ratio is spread. See `pruning_core.PruningSpec`."""

    name: str | None = Field(default=None, description="in tables and run names; default: criterion, allocator and ratio")
    ratio: float = Field(ge=0, lt=1, description="fraction of the channels to remove, 0 <= ratio < 1")
    criterion: str = Field(default=ENGINE.criterion, description="how a channel is scored")
    allocator: str = Field(default=ENGINE.allocator, description="how the ratio is spread over the layers: uniform, slamp")
    normalizer: str = Field(
        default=ENGINE.normalizer, description="how the scores of one layer are made comparable to another's"
    )
    policy: str = Field(default=ENGINE.policy, description="how the scores of coupled layers are combined")
    group_policy: str = Field(default=ENGINE.group_policy, description="how the groups of a grouped convolution agree")
    reshape_axis: str = Field(
        default=ENGINE.reshape_axis, description="which factor of a split axis is pruned: auto, inner, outer"
    )
    group_axis: str = Field(
        default=ENGINE.group_axis, description="prune inside the groups of a convolution, or whole groups"
    )
    min_channels: int = Field(
        default=ENGINE.min_channels, ge=1, description="channels that every layer keeps at least (never over its width)"
    )
    round_to: int = Field(default=ENGINE.round_to, ge=1, description="kept widths are multiples of this")
    round_mode: str = Field(default=ENGINE.round_mode, description="how kept widths are rounded: nearest, up, down")
    include: tuple[str, ...] = Field(default=(), description="name globs of the only layers to prune; empty: all")
    exclude: tuple[str, ...] = Field(default=(), description="name globs of layers to leave alone")
    ratios: dict[str, float] = Field(default_factory=dict, description="name glob -> ratio of its own")
    slamp_p: int = Field(default=ENGINE.slamp_p, ge=1, description="exponent of the slamp allocator")

    @field_validator("*")
    @classmethod
    def _suits_the_engine(cls, value: Any, info: ValidationInfo) -> Any:
        """Each option is judged alone by the engine itself, so that a mistake is shown at its own place."""
        field = info.field_name
        if field is not None and field not in ("name", "ratio"):
            try:
                pc.PruningSpec(**{field: value})
            except pc.SpecError as exc:
                raise ValueError(f"{exc.what}; {exc.fix}") from exc
        return value

    def spec(self) -> pc.PruningSpec:
        return pc.PruningSpec(**self.model_dump(exclude={"name"}))

    @property
    def title(self) -> str:
        return self.name or f"{self.criterion}-{self.allocator}-{self.ratio:g}"


class Distillation(Section):
    """Learn from the source model's answers as well as from the labels."""

    weight: float = Field(default=0.0, ge=0, le=1, description="share of the teacher in the loss; 0: labels only")
    temperature: float = Field(default=4.0, gt=0, description="softens both answers; 1: as they are")


class Regularization(Section):
    """Training BEFORE the cut, on a copy of the source, that drives whole channels towards zero."""

    kind: Literal["none", "bn_l1", "group_lasso"] = Field(
        default="none",
        description="bn_l1: the scales of all BatchNorms (Liu et al. 2017); group_lasso: all slices of each channel at once",
    )
    weight: float = Field(default=0.0001, ge=0, description="of the penalty, beside the loss")
    epochs: int = Field(default=5, ge=1, description="passes over the training split; the other settings are finetune's")


class Finetune(Section):
    """Training after the cut. The last epoch is kept: nothing is chosen on the data that judges the result."""

    epochs: int = Field(default=5, ge=0, description="passes over the training split; 0: no fine-tuning")
    learning_rate: float = Field(default=0.001, gt=0, description="at its highest; it falls to 0 along a cosine")
    batch_size: int = Field(default=64, ge=2, description="images per step")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="sgd runs with Nesterov momentum 0.9")
    weight_decay: float = Field(default=0.0001, ge=0, description="of the optimizer")
    seed: int = Field(default=0, ge=0, description="of the order of the images")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of torch; default: torch's own choice. Small models train best with 1",
    )
    distillation: Distillation = Distillation()
    regularization: Regularization = Regularization()


class Measure(Section):
    """Latency: taken after all training has ended, every model in turn in each round."""

    batch_size: int = Field(default=64, ge=2, description="images per call")
    threads: int = Field(default=1, ge=1, description="CPU threads of torch while measuring")
    rounds: int = Field(default=50, ge=3, description="timed calls per model")
    warmup: int = Field(default=10, ge=0, description="untimed calls per model before")


class Gate(Section):
    """What a candidate must do to be registered."""

    max_accuracy_drop: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="accuracy it may lose against the source, on the validation split (0.02 = 2 points)",
    )


class Registration(Section):
    """Where the results go: always the source's own registered model."""

    alias: str = Field(default="challenger", description="moved to the fastest candidate that passed, as the last step")
    experiment: str | None = Field(default=None, description="MLflow experiment of the runs; default: the source's own")

    @field_validator("alias")
    @classmethod
    def _is_an_alias(cls, value: str) -> str:
        if not ALIAS.fullmatch(value):
            raise ValueError(f"{value!r} cannot be an alias; use letters, digits, - and _, not 'latest' or 'v1'")
        return value


class Tracking(Section):
    """Where MLflow keeps its records."""

    uri: str = Field(
        default_factory=default_tracking_uri,
        description="tracking and registry URI; default: MLFLOW_TRACKING_URI, or SQLite in the data folder",
    )


class CompressConfig(Section):
    """A recipe: source, data, candidates, fine-tuning, measurement, gate, registration."""

    source: Source
    data: Data = Data()
    candidates: tuple[Candidate, ...] = Field(
        min_length=1, description="the versions to make, at least one, e.g. `- ratio: 0.5`"
    )
    finetune: Finetune = Finetune()
    measure: Measure = Measure()
    gate: Gate = Gate()
    registration: Registration = Registration()
    tracking: Tracking = Field(default_factory=Tracking)

    @model_validator(mode="after")
    def _titles_differ(self) -> "CompressConfig":
        titles = [candidate.title for candidate in self.candidates]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"two candidates are called {title!r}; give one of them another `name`")
        return self

    @model_validator(mode="after")
    def _alias_is_not_the_source(self) -> "CompressConfig":
        if self.source.model.endswith(f"@{self.registration.alias}"):
            raise ValueError(f"registration.alias {self.registration.alias!r} is the source's own alias; it would be moved")
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(path: str | Path) -> CompressConfig:
    """Read and check a YAML recipe. Raises ConfigError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the configuration cannot be read: {exc}", str(path), "give the path of a YAML file") from exc
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"this is not YAML: {exc}", str(path), "mend the line that is named above") from exc
    return parse_config(raw, str(path))


def data_section(name: str | None, path: str | None) -> Data:
    """The data section that a command line means. Raises ConfigError."""
    name = name or ("npz" if path else Data().name)
    if name not in DATASETS:
        raise ConfigError(f"no data set {name!r}", "--data", did_you_mean(name, DATASETS))
    return Data(name=name, path=path)


def ratio_list(text: str, where: str) -> tuple[float, ...]:
    """`0.25, 0.5` as ratios above 0 and below 1. Raises ConfigError that names the first that is none."""
    tokens = [token.strip() for token in text.split(",")]
    for token in tokens:
        try:
            is_ratio = 0 < float(token) < 1
        except ValueError:
            is_ratio = False
        if not is_ratio:
            raise ConfigError(f"{token!r} is no ratio above 0 and below 1", where, "write e.g. 0.25,0.5,0.75")
    return tuple(float(token) for token in tokens)


def parse_config(raw: object, where: str) -> CompressConfig:
    """The same for data that is already in memory."""
    if not isinstance(raw, Mapping):
        raise ConfigError("a configuration is a mapping", where, "start with `source:` and `candidates:`")
    try:
        return CompressConfig.model_validate(raw)
    except ValidationError as exc:
        mistakes = _mistakes(exc)
    if len(mistakes) == 1:
        place, text, fix = mistakes[0]
        raise ConfigError(f"{place}: {text}", where, fix)
    lines = [f"{place}: {text} ({fix})" for place, text, fix in mistakes]
    raise ConfigError("\n".join([f"{len(lines)} mistakes in the configuration", *lines]), where, "correct each of them")


def _mistakes(exc: ValidationError) -> list[tuple[str, str, str]]:
    """(place, what is wrong, what to do) of each error, without those that only follow from another."""
    errors: list[dict[str, Any]] = [dict(error) for error in exc.errors()]
    misspelt = {
        str(nearest_name(str(e["loc"][-1]), _fields_at(e["loc"][:-1]))) for e in errors if e["type"] == "extra_forbidden"
    }
    mistakes = []
    for error in errors:
        follows = (error["type"] == "missing" and str(error["loc"][-1]) in misspelt) or (
            error["type"] == "too_short" and error["input"]  # pydantic counts only the items that were right
        )
        if not follows:
            mistakes.append(_mistake(error))
    return mistakes


def _mistake(error: Mapping[str, Any]) -> tuple[str, str, str]:
    """(place, what is wrong, what to do) of one pydantic error."""
    location: tuple[str | int, ...] = error["loc"]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    place = place or "the configuration"
    given = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            nearest = did_you_mean(str(location[-1]), _fields_at(location[:-1]))
            return place, f"there is no field {location[-1]!r} here", nearest
        case "missing":
            return place, "is missing", f"add it: {_description_of(location)}"
        case "too_short":
            return (
                place,
                "the list is empty, so there is nothing to do",
                "list at least one, e.g. `- ratio: 0.5`",
            )
        case "value_error":
            return place, str(error["ctx"]["error"]), f"correct {place}"
        case _:
            description = _description_of(location)
            advice = f"it is: {description}" if description else "see the description of the field"
            return place, f"{given!r} is not allowed; {error['msg'].replace('Input should', 'it must')}", advice


def _fields_at(location: tuple[str | int, ...]) -> list[str]:
    section = _section_at(location)
    return list(section.model_fields) if section else []


def _description_of(location: tuple[str | int, ...]) -> str:
    section = _section_at(location[:-1]) if location else None
    if section is None:
        return ""
    field = section.model_fields.get(str(location[-1]))
    if field is None:
        return ""
    return field.description or (field.annotation.__doc__ or "" if field.annotation else "")


def _section_at(location: tuple[str | int, ...]) -> type[Section] | None:
    section: Any = CompressConfig
    for part in location:
        if isinstance(part, int):
            continue  # an item of a list of sections: the type is already resolved below
        if not (isinstance(section, type) and issubclass(section, Section)):
            return None
        if part not in section.model_fields:
            return None
        section = section.model_fields[part].annotation
        section = next((arg for arg in get_args(section) if isinstance(arg, type) and arg is not type(None)), section)
    return section if isinstance(section, type) and issubclass(section, Section) else None
