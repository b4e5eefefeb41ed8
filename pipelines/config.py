"""One typed configuration: the YAML recipe, the CLI and the flow's form in the Prefect UI are all this.

A ratio is always the fraction REMOVED. Accuracies are fractions, 0 to 1. Unset fields take the default shown.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

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


class Calibration(Section):
    """Images of the training split from which statistics are taken: scores, and the repair of what a cut took away."""

    samples: int = Field(
        default=1024,
        ge=0,
        description="so many, or the whole training split where it holds fewer (the run records how many); 0: none",
    )
    seed: int = Field(default=0, ge=0, description="of the choice of images")


class Candidate(Section):
    """One way to prune: what goes, how channels are scored, how a ratio is spread. See `pruning_core.PruningSpec`.

    What goes is one of `ratio`, `budget`, `index`, `ratios`, `ratios_from`.
    """

    name: str | None = Field(default=None, description="in tables and run names; default: what it does in short")
    ratio: float | None = Field(default=None, ge=0, lt=1, description="fraction of the channels to remove, 0 <= ratio < 1")
    budget: dict[str, float | str] = Field(
        default_factory=dict,
        description="what may be left: macs (of one image), params, size_mb, latency_ms (of one batch as in `measure`), "
        'each as a limit or a factor such as "2.0x"',
    )
    index: dict[str, Any] = Field(
        default_factory=dict, description='layer -> exactly the channels to remove, e.g. "3, 8-11"'
    )
    ratios: dict[str, float] = Field(default_factory=dict, description="layer name or glob -> ratio of its own")
    ratios_from: str | None = Field(
        default=None,
        description="a YAML file as `secateur recommend` prints it, or layer -> ratio; its path starts at the recipe",
    )
    criterion: str = Field(default=ENGINE.criterion, description="how a channel is scored; auto: reconstruction with data")
    allocator: str = Field(
        default=ENGINE.allocator,
        description="how the ratio is spread over the layers; auto: budget or per_layer where one is given, else uniform",
    )
    compensation: str = Field(
        default=ENGINE.compensation,
        description="how what the cut took away is mended: auto (sequential with data), sequential, least_squares, none",
    )
    recalibrate_bn: bool = Field(default=ENGINE.recalibrate_bn, description="take BatchNorm statistics anew after the cut")
    steps: int = Field(default=ENGINE.steps, ge=1, description="score and prune in so many steps instead of at once")
    seed: int = Field(default=ENGINE.seed, ge=0, description="of everything that is drawn at random")
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
    slamp_p: int = Field(default=ENGINE.slamp_p, ge=1, description="exponent of the slamp allocator")

    @model_validator(mode="before")
    @classmethod
    def _reads_its_ratios(cls, given: Any, info: ValidationInfo) -> Any:
        """The file becomes part of the configuration, so that a stored one says all. What stands here goes first."""
        if not isinstance(given, Mapping) or not isinstance(given.get("ratios_from"), str):
            return given
        folder = Path(info.context["folder"]) if info.context else Path()
        rest = {key: value for key, value in given.items() if key != "ratios_from"}
        if rest.get("ratios"):
            raise ValueError("`ratios` and `ratios_from` are both given; leave one of them out")
        return {"name": Path(given["ratios_from"]).stem, **read_ratios(folder / given["ratios_from"]), **rest}

    @field_validator("*")
    @classmethod
    def _suits_the_engine(cls, value: Any, info: ValidationInfo) -> Any:
        """Each option is judged alone by the engine itself, so that a mistake is shown at its own place."""
        field = info.field_name
        alone = field not in (None, "name", "ratio", "ratios_from") and (field, value) != ("allocator", "budget")
        if field is not None and alone:
            try:
                pc.PruningSpec(**{field: value})
            except pc.SpecError as exc:
                where = "" if exc.where in (field, exc.what) or exc.where in exc.what else f" in {exc.where}"
                raise ValueError(f"{exc.what}{where}; {exc.fix}") from exc
        return value

    @model_validator(mode="after")
    def _says_what_goes(self) -> "Candidate":
        by_layer = self.allocator in ("auto", "per_layer")
        given = [name for name in ("ratio", "budget", "index") if getattr(self, name) not in (None, {})]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(f'`{name}`' for name in given)} are given; say what goes in one way only")
        if not given and not (self.ratios and by_layer):
            raise ValueError("it does not say what goes; give a `ratio`, a `budget`, an `index` or `ratios` by layer")
        if self.index and self.ratios:
            raise ValueError("`index` and `ratios` are given; say what goes in one way only")
        if self.allocator == "per_layer" and not self.ratios:
            raise ValueError("the allocator 'per_layer' has no `ratios`; name layers and their ratios")
        try:
            self.spec()
        except pc.SpecError as exc:
            raise ValueError(f"{exc.what}; {exc.fix}") from exc
        return self

    def spec(self) -> pc.PruningSpec:
        options = self.model_dump(exclude={"name", "ratios_from"})
        if self.ratio is None:
            del options["ratio"]
            if self.ratios and not self.budget and self.allocator == "auto":
                options["allocator"] = "per_layer"
        return pc.PruningSpec(**options)

    def resolved(self, has_calibration: bool) -> "Candidate":
        """The same with every `auto` decided."""
        spec = self.spec().resolved(has_calibration)
        decided = {name: getattr(spec, name) for name in ("criterion", "allocator", "compensation")}
        return self.model_copy(update=decided)

    @property
    def asked(self) -> str:
        """What is to go, in a few words."""
        if self.ratio is not None:
            return f"{self.ratio:g}"
        if self.budget:
            return ", ".join(f"{name} {_short(value)}" for name, value in self.budget.items())
        return "index" if self.index else "per layer"

    @property
    def title(self) -> str:
        """`l2_norm-slamp-0.7`, `reconstruction-macs-2x`, `index-stem.0`."""
        if self.name:
            return self.name
        if self.index:
            return "-".join(["index", *list(self.index)[:3]])
        if self.budget:
            return "-".join([self.criterion, *(f"{name}-{_short(value)}" for name, value in self.budget.items())])
        spread = self.allocator if self.ratio is not None else "per_layer"
        return f"{self.criterion}-{spread}" + (f"-{self.ratio:g}" if self.ratio is not None else "")


def _short(value: float | str) -> str:
    return f"{float(value.strip().rstrip('xX')):g}x" if isinstance(value, str) else f"{value:g}"


def read_ratios(path: Path) -> dict[str, Any]:
    """The options in a file that `secateur recommend` printed, or of a plain mapping layer -> ratio. Raises ValueError."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"the ratios cannot be read: {exc}; make the file with `secateur recommend`") from exc
    except yaml.YAMLError as exc:
        raise ValueError(f"{path} is not YAML: {exc}".replace("\n", " ")) from exc
    if not isinstance(raw, Mapping) or not raw:
        raise ValueError(f"{path} holds no ratios; write `ratios:` and below it lines such as `conv1: 0.5`")
    if "ratios" in raw and isinstance(raw["ratios"], Mapping):
        return dict(raw)
    return {"ratios": dict(raw)}


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
    calibration: Calibration = Calibration()
    candidates: tuple[Candidate, ...] = Field(
        min_length=1, description="the versions to make, at least one, e.g. `- ratio: 0.5`"
    )
    finetune: Finetune = Finetune()
    measure: Measure = Measure()
    gate: Gate = Gate()
    registration: Registration = Registration()
    tracking: Tracking = Field(default_factory=Tracking)

    @field_validator("candidates")
    @classmethod
    def _nothing_is_left_to_guess(cls, value: tuple[Candidate, ...], info: ValidationInfo) -> tuple[Candidate, ...]:
        """What `auto` means is decided here, so that titles, runs and stored configurations say it."""
        calibration = info.data.get("calibration")
        if calibration is None:
            return value
        for candidate in value:
            if not calibration.samples:
                mends = [] if candidate.compensation in ("auto", "none") else [f"compensation {candidate.compensation!r}"]
                for wish in [*mends, *(["recalibrate_bn"] if candidate.recalibrate_bn else [])]:
                    raise ValueError(f"{candidate.title}: {wish} needs data; set calibration.samples, e.g. to 1024")
        return tuple(candidate.resolved(calibration.samples > 0) for candidate in value)

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
    return parse_config(raw, str(path), Path(path).parent)


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


def parse_budget(texts: Sequence[str]) -> dict[str, float | str]:
    """`macs=2x`, `latency_ms=5` as a command line gives them. Raises ConfigError."""
    found: dict[str, float | str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name or not value:
            raise ConfigError(f"{text!r} is no budget", "--budget", "write e.g. --budget macs=2x or --budget latency_ms=5")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = value
    return found


S = TypeVar("S", bound=Section)


def parse_section(kind: type[S], raw: Mapping[str, Any], where: str) -> S:
    """One section alone. Raises ConfigError with all mistakes."""
    try:
        return kind.model_validate(raw)
    except ValidationError as exc:
        errors: list[dict[str, Any]] = [dict(error) for error in exc.errors()]
    texts = [": ".join([*map(str, e["loc"]), str(e.get("ctx", {}).get("error", e["msg"]))]) for e in errors]
    raise ConfigError("; ".join(texts), where, "correct it; --help describes every option")


def parse_config(raw: object, where: str, folder: Path = Path()) -> CompressConfig:
    """The same for data that is already in memory; `folder` is where the files that it names lie."""
    if not isinstance(raw, Mapping):
        raise ConfigError("a configuration is a mapping", where, "start with `source:` and `candidates:`")
    try:
        return CompressConfig.model_validate(raw, context={"folder": folder})
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
