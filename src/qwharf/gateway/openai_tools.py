"""OpenAI's tools: definitions, the choice among them, and the arguments of earlier calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qwharf.gateway.body import check_depth, parse_object
from qwharf.gateway.errors import ApiError, bad
from qwharf.gateway.fields import Fields, JsonObject, shown

MAX_TOOLS = 128
MAX_NAME_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class Tools:
    """What the model may call, and whether it must."""

    offered: Sequence[JsonObject] = ()
    choice: Literal["auto", "required"] = "auto"


def tools(fields: Fields) -> Tools:
    """``tools`` and ``tool_choice`` of a request.

    ``none`` shows the model no tools, so that it cannot call one; a named tool shows it only that
    one, and requires a call: engines know no other way.

    Raises:
        ApiError: 400.
    """
    for old in ("functions", "function_call"):
        if fields.get(old) is not None:
            raise bad(
                old,
                f"`{old}` is of the old function calling; use `tools`.",
                "unsupported_parameter",
            )
    found = fields.list("tools") or []
    if len(found) > MAX_TOOLS:
        raise bad("tools", f"`tools` has {len(found)} entries; at most {MAX_TOOLS} are taken.")
    offered = [_tool(t, f"tools[{i}]") for i, t in enumerate(found)]
    names = [t["function"]["name"] for t in offered]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise bad(f"tools[{i}].function.name", f"Two tools are called {shown(name)}.")
    return _chosen(fields.get("tool_choice"), offered, names)


def _tool(tool: Any, at: str) -> JsonObject:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type", "function") != "function":
        raise bad(at, f'`{at}` is not {{"type": "function", "function": {{…}}}}.')
    name = function.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME_CHARACTERS:
        wanted = f"text of 1 to {MAX_NAME_CHARACTERS} characters"
        raise bad(
            f"{at}.function.name", f"`{at}.function.name` is {shown(name)}; expected {wanted}."
        )
    inner = Fields(function, f"{at}.function")
    inner.text("description")
    inner.object("parameters")
    return {**tool, "type": "function"}


def _chosen(choice: Any, offered: Sequence[JsonObject], names: Sequence[str]) -> Tools:
    if choice is None or choice == "auto":
        return Tools(offered)
    if choice == "none":
        return Tools()
    if not offered:
        raise bad("tool_choice", "`tool_choice` asks for a call, but there are no `tools`.")
    if choice == "required":
        return Tools(offered, "required")
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name is None:
        wanted = 'none, auto, required or {"type": "function", "function": {"name": …}}'
        raise bad("tool_choice", f"`tool_choice` is {shown(choice)}; expected {wanted}.")
    if name not in names:
        raise bad(
            "tool_choice",
            f"`tool_choice` names {shown(name)}; the tools are {', '.join(map(shown, names))}.",
        )
    return Tools([offered[names.index(name)]], "required")


def call_arguments(found: Any, at: str) -> str:
    """The arguments of an earlier call, as the text of a JSON object.

    An object is taken too, and nothing at all as ``{}``: some clients send calls so.

    Raises:
        ApiError: 400; engines fail on anything else.
    """
    if found is None or found == "":
        return "{}"
    if isinstance(found, dict):
        return json.dumps(found, ensure_ascii=False)
    if not isinstance(found, str):
        raise bad(at, f"`{at}` is {shown(found)}; expected the text of a JSON object.")
    try:
        check_depth(parse_object(found.encode("utf-8", "surrogatepass")))
    except ApiError as e:
        raise bad(
            at, f"`{at}` is not the text of a JSON object: {e.message}", "invalid_json"
        ) from None
    return found
