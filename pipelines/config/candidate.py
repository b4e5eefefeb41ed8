"""One way to prune, in the words of `pruning_core.PruningSpec`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import Field, ValidationInfo, field_validator, model_validator

import pruning_core as pc
from pipelines.config.section import Section
from pruning_core.spec import AXES, ELSEWHERE

ENGINE = pc.PruningSpec()  # its defaults are ours


class Candidate(Section):
    """One way to prune: what goes, how channels are scored, how a ratio is spread. See `pruning_core.PruningSpec`.

    What goes is one of `ratio`, `budget`, `index`, `ratios`, `ratios_from`.
    """

    elsewhere: ClassVar[Mapping[str, str]] = ELSEWHERE

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
    group_policy: str = Field(
        default=ENGINE.group_policy, description="how the parts of a split axis agree (heads, groups of a convolution)"
    )
    reshape_axis: str = Field(
        default=ENGINE.reshape_axis, description="which factor of a split axis is pruned: auto, inner (-1), outer (-2)"
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

    @field_validator("reshape_axis", mode="before")
    @classmethod
    def _by_its_number_too(cls, given: Any) -> Any:
        return AXES.get(str(given), given)

    @field_validator("include", "exclude", mode="before")
    @classmethod
    def _one_is_a_list(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

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
