"""Options that belong together: declared once as a dataclass, spread over the commands that take them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

Result = TypeVar("Result")


def grouped(command: Callable[..., Result]) -> Callable[..., Result]:
    """A command that takes, for each parameter which is a dataclass of options, its fields as options.

    Args:
        command: Its other parameters stay what they are.

    Returns:
        A function with the signature that typer reads options from; it takes keywords only.
    """
    # Not by `get_type_hints`: on Python 3.10 it hides what is annotated in an Optional where the default is None.
    given = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, type[Any]] = {
        name: each.annotation
        for name, each in given.items()
        if is_dataclass(each.annotation) and isinstance(each.annotation, type)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in given.items():
        if name in groups:
            parameters += _options(groups[name])
        else:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def spread(**values: Any) -> Result:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        return command(**made, **values)

    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return spread


def _options(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(field.name, kind, default=_default(field), annotation=hints[field.name])
        for field in fields(group)
    ]


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
