"""A recommendation as YAML that a person edits and `ratios_from` reads."""

from collections.abc import Mapping

import yaml

import pruning_core as pc


def recommendation_yaml(recommendation: pc.Recommendation, source: str, asked: str) -> str:
    """Options first, then a line per group under a comment with the other columns of the table."""
    options = recommendation.to_dict()
    ratios: Mapping[str, float] = options.pop("ratios")
    lines = [
        f"# {source}, asked: {asked}. A ratio is the fraction REMOVED. Edit the ratios, then put this file into a recipe:",
        "#   candidates:",
        "#     - ratios_from: ratios.yaml",
        f"# As they are: {recommendation.total}.",
        yaml.safe_dump(options, sort_keys=False).rstrip() if options else "",
        "ratios:",
    ]
    locked = []
    for row in recommendation.rows:
        with_it = ", ".join(layer for layer in row.layers if layer != row.name)
        if row.name not in ratios:
            locked.append(f"# {row.name}: {row.width} channels, {row.reason}")
            continue
        lines += [
            f"  # {row.width} -> {row.kept} channels, scores {row.score_min:.3g} to {row.score_max:.3g}, "
            f"{row.macs_share:.1%} of the MACs"
            + (f"; {row.reason}" if row.reason else "")
            + (f"; cut together with {with_it}" if with_it else ""),
            "  " + yaml.safe_dump({row.name: ratios[row.name]}, width=1000).strip(),
        ]
    return "\n".join([line for line in (*lines, *locked) if line]) + "\n"
