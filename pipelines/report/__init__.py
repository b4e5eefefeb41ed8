"""What a person sees of a comparison: table, plot, Markdown. Pure functions of the rows."""

from pipelines.report.ancestry import ancestry_json, ancestry_text
from pipelines.report.plot import accuracy_latency_plot
from pipelines.report.recommendation import recommendation_yaml
from pipelines.report.sensitivity import sensitivity_heat_map, sensitivity_table
from pipelines.report.table import COLUMNS, to_frame, to_markdown, to_rich
from pipelines.report.text import calibration_note, describe_parent, describe_version, version_tags
from pipelines.report.trial import trial_markdown

__all__ = [
    "COLUMNS",
    "accuracy_latency_plot",
    "ancestry_json",
    "ancestry_text",
    "calibration_note",
    "describe_parent",
    "describe_version",
    "recommendation_yaml",
    "sensitivity_heat_map",
    "sensitivity_table",
    "to_frame",
    "to_markdown",
    "to_rich",
    "trial_markdown",
    "version_tags",
]
