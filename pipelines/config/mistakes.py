"""What is wrong with a configuration, in the user's words."""

import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError

from pipelines.config.section import Section
from pipelines.names import did_you_mean, nearest_name


def mistakes_in(exc: ValidationError, root: type[Section]) -> list[tuple[str, str, str]]:
    """(place, what is wrong, what to do) of each error, without those that only follow from another."""
    errors: list[dict[str, Any]] = [dict(error) for error in exc.errors()]
    misspelt = {
        str(nearest_name(str(e["loc"][-1]), _fields_at(root, e["loc"][:-1])))
        for e in errors
        if e["type"] == "extra_forbidden"
    }
    mistakes = []
    for error in errors:
        follows = (error["type"] == "missing" and str(error["loc"][-1]) in misspelt) or (
            error["type"] == "too_short" and error["input"]  # pydantic counts only the items that were right
        )
        if not follows:
            mistakes.append(_mistake(root, error))
    return mistakes


def _mistake(root: type[Section], error: Mapping[str, Any]) -> tuple[str, str, str]:
    """(place, what is wrong, what to do) of one pydantic error."""
    location: tuple[str | int, ...] = error["loc"]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    place = place or "the configuration"
    given = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            return place, f"there is no field {location[-1]!r} here", _other_name(root, location)
        case "missing":
            return place, "is missing", f"add it: {_description_of(root, location)}"
        case "too_short":
            return (
                place,
                "the list is empty, so there is nothing to do",
                f"list at least one: {_description_of(root, location)}",
            )
        case "value_error":
            return place, str(error["ctx"]["error"]), f"correct {place}"
        case _:
            description = _description_of(root, location)
            advice = f"it is: {description}" if description else "see the description of the field"
            return place, f"{given!r} is not allowed; {_in_words(error['msg'])}", advice


def _other_name(root: type[Section], location: tuple[str | int, ...]) -> str:
    """What to write for a field that there is not."""
    section, name = _section_at(root, location[:-1]), str(location[-1])
    if section and name in section.elsewhere:
        return f"write `{section.elsewhere[name]}`"
    return did_you_mean(name, section.model_fields if section else ())


def _in_words(message: str) -> str:
    """pydantic's, without the names of Python's types."""
    message = message.replace("Input should", "it must").replace("a valid tuple", "a list")
    return re.sub(r"a valid dictionary or instance of \w+", "a mapping of its fields", message)


def _fields_at(root: type[Section], location: tuple[str | int, ...]) -> list[str]:
    section = _section_at(root, location)
    return list(section.model_fields) if section else []


def _description_of(root: type[Section], location: tuple[str | int, ...]) -> str:
    while location and isinstance(location[-1], int):  # an item is what its list is
        location = location[:-1]
    section = _section_at(root, location[:-1]) if location else None
    if section is None:
        return ""
    field = section.model_fields.get(str(location[-1]))
    if field is None:
        return ""
    text = field.description or (field.annotation.__doc__ or "" if field.annotation else "")
    return text.partition("\n\n")[0]


def _section_at(root: type[Section], location: tuple[str | int, ...]) -> type[Section] | None:
    section: Any = root
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
