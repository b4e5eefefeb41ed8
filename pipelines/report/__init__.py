"""What a person sees of a comparison: table, plot, Markdown. Pure functions of the rows."""

from pipelines.report.ancestry import ancestry_json, ancestry_text
from pipelines.report.confusion import confusion_picture
from pipelines.report.files import latency_table, write_evaluation, write_latency
from pipelines.report.forms import describe_forms
from pipelines.report.html import Confusions, Width, html_report, pareto_front
from pipelines.report.plot import accuracy_latency_plot
from pipelines.report.recommendation import recommendation_yaml
from pipelines.report.sensitivity import sensitivity_heat_map, sensitivity_table
from pipelines.report.table import COLUMNS, to_frame, to_markdown, to_rich
from pipelines.report.text import (
    calibration_note,
    describe_parent,
    describe_version,
    noise_note,
    notes_on_rows,
    version_tags,
)
from pipelines.report.trial import trial_markdown
from pipelines.report.words import nothing_passed

__all__ = [
    "COLUMNS",
    "Confusions",
    "Width",
    "accuracy_latency_plot",
    "ancestry_json",
    "ancestry_text",
    "calibration_note",
    "confusion_picture",
    "describe_forms",
    "describe_parent",
    "describe_version",
    "html_report",
    "latency_table",
    "noise_note",
    "notes_on_rows",
    "nothing_passed",
    "pareto_front",
    "recommendation_yaml",
    "sensitivity_heat_map",
    "sensitivity_table",
    "to_frame",
    "to_markdown",
    "to_rich",
    "trial_markdown",
    "version_tags",
    "write_evaluation",
    "write_latency",
]
