"""Tools and how they are to be chosen in OpenAI's Responses API, inwards."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from src.api.dialects.fields import list_at, object_at, text_at
from src.domain.completion.tools import Tool, ToolChoice, ToolUse, flat_name
from src.shared.errors import InvalidRequest

_USES = {"auto": ToolUse.AUTO, "none": ToolUse.NONE, "required": ToolUse.REQUIRED}
_CALLABLE = ("function", "custom")


class Notes:
    """Names of what a body says that has no place in our words."""

    def __init__(self) -> None:
        self.untranslated: dict[str, None] = {}

    def leave_out(self, name: str) -> None:
        """Note that it goes missing in a translation."""
        self.untranslated[name[:64]] = None


def tools_of(given: Any, where: str, notes: Notes) -> tuple[Tool, ...]:
    """The client's own tools, those of namespaces by flat names. Hosted ones are left out by name.

    Raises InvalidRequest.
    """
    found: list[Tool] = []
    for namespace, tool, at in _each(given, where):
        kind = tool["type"]
        if kind in _CALLABLE:
            found.append(_tool(tool, at, namespace, notes))
        else:
            notes.leave_out(f"tools[{kind}]")
    return tuple(found)


def namespaces_of(given: Iterable[Any]) -> Mapping[str, tuple[str, str]]:
    """The flat names of tools (as they were parsed before) that are in a namespace, with it and their names there."""
    told = ((namespace, tool) for namespace, tool, _ in _each(list(given), "tools") if tool["type"] in _CALLABLE)
    named = ((namespace, tool["name"]) for namespace, tool in told if namespace)
    return {flat: pair for pair in named if (flat := flat_name(*pair)) != pair[1]}


def _each(given: Any, where: str) -> Iterator[tuple[str | None, Mapping[str, Any], str]]:
    """Every tool, with its namespace and where it stands."""
    for index, value in enumerate(list_at(given, where)):
        at = f"{where}[{index}]"
        tool = object_at(value, at)
        if text_at(tool.get("type"), f"{at}.type") != "namespace":
            yield None, tool, at
            continue
        namespace = text_at(tool.get("name"), f"{at}.name")
        for place, inner in enumerate(list_at(tool.get("tools"), f"{at}.tools")):
            inside = f"{at}.tools[{place}]"
            text_at(object_at(inner, inside).get("type"), f"{inside}.type")
            yield namespace, inner, inside


def _tool(tool: Mapping[str, Any], where: str, namespace: str | None, notes: Notes) -> Tool:
    name = flat_name(namespace, text_at(tool.get("name"), f"{where}.name"))
    description = tool.get("description")
    if description is not None:
        text_at(description, f"{where}.description")
    if tool["type"] == "custom":
        return Tool(name=name, description=_with_grammar(description, tool.get("format"), notes), is_custom=True)
    schema, strict = tool.get("parameters"), tool.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise InvalidRequest(f"{where}.strict must be true or false.", param=f"{where}.strict")
    schema = {} if schema is None else object_at(schema, f"{where}.parameters")
    return Tool(name=name, description=description, schema=schema, strict=strict)


def _with_grammar(description: str | None, form: Any, notes: Notes) -> str | None:
    """Elsewhere a grammar binds nobody, but a model can read it."""
    definition = form.get("definition") if isinstance(form, dict) else None
    if not isinstance(definition, str):
        return description
    notes.leave_out("tools[custom].format")
    syntax = form.get("syntax")
    kind = f"{syntax} grammar" if isinstance(syntax, str) else "grammar"
    return f"{description or ''}\n\nThe input must match this {kind}:\n{definition}".strip()


def choice_of(given: Any, notes: Notes) -> ToolChoice:
    """The field tool_choice. Raises InvalidRequest."""
    if given is None:
        return ToolChoice()
    if isinstance(given, str):
        if given not in _USES:
            raise InvalidRequest(
                "tool_choice must be one of auto, none and required, or an object.", param="tool_choice"
            )
        return ToolChoice(use=_USES[given])
    choice = object_at(given, "tool_choice")
    kind = text_at(choice.get("type"), "tool_choice.type")
    if kind in _CALLABLE:
        return ToolChoice(use=ToolUse.REQUIRED, names=(_name(choice, "tool_choice"),))
    if kind == "allowed_tools":
        return _allowed(choice, notes)
    notes.leave_out("tool_choice")
    return ToolChoice()


def _allowed(choice: Mapping[str, Any], notes: Notes) -> ToolChoice:
    mode = choice.get("mode", "auto")
    if mode not in ("auto", "required"):
        raise InvalidRequest("tool_choice.mode must be auto or required.", param="tool_choice.mode")
    names: list[str] = []
    for index, value in enumerate(list_at(choice.get("tools"), "tool_choice.tools")):
        where = f"tool_choice.tools[{index}]"
        tool = object_at(value, where)
        if text_at(tool.get("type"), f"{where}.type") in _CALLABLE:
            names.append(_name(tool, where))
        else:
            notes.leave_out("tool_choice")
    return ToolChoice(use=_USES[mode], names=tuple(names))


def _name(given: Mapping[str, Any], where: str) -> str:
    namespace = given.get("namespace")
    if namespace is not None:
        text_at(namespace, f"{where}.namespace")
    return flat_name(namespace, text_at(given.get("name"), f"{where}.name"))
