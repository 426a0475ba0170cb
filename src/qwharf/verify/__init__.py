"""The Qwen3 contract: does a running deployment behave like the checkpoint it was made from?

:data:`CHECKS` is the ordered table of all checks; :func:`run` runs them against a
:class:`Target` over HTTP and returns a :class:`~qwharf.types.Report`. Nothing here knows which
engine answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from qwharf.errors import UsageError
from qwharf.types import Check, Report
from qwharf.verify import (
    context,
    models,
    sampling,
    stopping,
    streaming,
    structured,
    template,
    thinking,
    tools,
)
from qwharf.verify.contract import CheckFunction
from qwharf.verify.probe import Probe
from qwharf.verify.target import Reference, Target

__all__ = ["CHECKS", "CheckFunction", "Reference", "Target", "run"]

CHECKS: tuple[CheckFunction, ...] = (
    models.models_listed,
    models.unknown_model,
    models.malformed_request,
    template.template_token_exact,
    template.content_forms,
    thinking.thinking_on,
    thinking.thinking_off,
    thinking.reasoning_effort_none,
    thinking.thinking_absent,
    thinking.thinking_stays_on,
    thinking.soft_switches,
    thinking.reasoning_field,
    thinking.reasoning_history,
    tools.tool_call,
    tools.tool_call_while_thinking,
    tools.tool_call_stream,
    tools.tool_parallel,
    tools.tool_zero_args,
    tools.tool_several,
    tools.tool_nested_json,
    tools.tool_result_turn,
    tools.tool_choice_none,
    sampling.greedy_repeatable,
    sampling.sampling_applied,
    sampling.seed_obeyed,
    sampling.sampling_defaults,
    sampling.logprobs,
    sampling.max_tokens,
    stopping.stop_tokens,
    stopping.stop_string,
    stopping.usage_counts,
    streaming.stream_shape,
    streaming.stream_equals_whole,
    streaming.utf8_stream,
    streaming.concurrent_requests,
    structured.json_format,
    context.context_honoured,
    context.context_refused_beyond,
)
"""Every check, in the order in which they run."""


def run(
    target: Target,
    *,
    on_check: Callable[[Check], None] | None = None,
    only: Collection[str] | None = None,
) -> Report:
    """Check ``target`` against the contract, one check after the other.

    A check that does not apply (another kind of model, no reference) is reported as skipped, with
    the reason. ``only`` names the checks to run.

    Raises:
        UsageError: ``only`` names an unknown check, or several models are served and none named.
        NetworkError: nothing answers at ``target.base_url``.
    """
    known = {c.id for c in CHECKS}
    unknown = sorted(set(only or ()) - known)
    if unknown:
        raise UsageError(
            ", ".join(unknown),
            expected="ids of checks",
            hint="see them with `qwharf verify --list`",
            suggestions=sorted(known),
        )
    done: list[Check] = []
    with Probe(target) as probe:
        probe.settle()
        for function in CHECKS:
            if only and function.id not in only:
                continue
            result = function(probe)
            done.append(result)
            if on_check is not None:
                on_check(result)
        name = probe.label
    return Report(
        deployment=name,
        base_url=target.base_url,
        model=target.model or name,
        thinking=target.thinking,
        checks=tuple(done),
        created_at=time.time(),
    )
