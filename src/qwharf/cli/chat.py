"""``chat``: talk to a deployment from the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from qwharf import settings
from qwharf.cli.options import name_argument, with_output
from qwharf.cli.output import Output
from qwharf.cli.text import harmless
from qwharf.daemon.client import DaemonClient
from qwharf.errors import EngineError, NetworkError, UnknownDeployment
from qwharf.types import Deployment

HELP = "/think, /no_think switch thinking; /system TEXT; /clear forgets; /bye or Ctrl-D ends."


@click.command()
@name_argument
@click.argument("prompt", required=False)
@click.option("--system", help="System prompt.")
@click.option("--thinking/--no-thinking", default=None, help="Switch thinking on or off.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="Default: the mode's own preset.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer.")
@with_output
def chat(
    name: str,
    prompt: str | None,
    system: str | None,
    thinking: bool | None,
    temperature: float | None,
    max_tokens: int | None,
    out: Output,
) -> None:
    """Talk to NAME, a deployment or an adapter on one; with PROMPT (or text on standard input),
    answer once.

    \b
    Examples:
      qwharf chat pocket
      qwharf chat pocket "What is the capital of France?" --no-thinking
      git diff | qwharf chat qwen3-8b "Review this:"
    """
    deployment = serving(DaemonClient(settings.load()), name)
    talk = Conversation(
        deployment.base_url,
        name if name in deployment.spec.adapters else deployment.spec.name,
        out,
        system=system,
        thinking=thinking,
        temperature=temperature,
        max_tokens=max_tokens,
    )
    piped = "" if sys.stdin.isatty() else sys.stdin.read().strip()
    if prompt or piped:
        out.data(talk.say("\n\n".join(filter(None, [prompt, piped]))))
        return
    out.note(f"Talking to `{name}`. {HELP}\n")
    while (line := ask(out)) is not None:
        if not command(line, talk, out):
            try:
                answer = talk.say(line)
                if out.as_json:
                    out.line(answer, "")
            except KeyboardInterrupt:
                out.note("\n(stopped)")


def serving(client: DaemonClient, name: str) -> Deployment:
    """The deployment that answers to ``name``: its own, or that of an adapter on it.

    Raises:
        UnknownDeployment: there is none.
    """
    try:
        return client.get(name)
    except UnknownDeployment:
        for deployment in client.list() if client.is_running() else ():
            if name in deployment.spec.adapters:
                return deployment
        raise


def ask(out: Output) -> str | None:
    """One line from the user; ``None`` at the end."""
    try:
        line = input(out.style(">>> ", "bold", "cyan"))
    except EOFError:
        out.note()
        return None
    return None if line.strip() == "/bye" else line


def command(line: str, talk: Conversation, out: Output) -> bool:
    """Obey a slash command of ours; ``/think`` and ``/no_think`` alone set the switch."""
    word, _, rest = line.strip().partition(" ")
    if word in ("/think", "/no_think") and not rest:
        talk.thinking = word == "/think"
        out.note(f"thinking {'on' if talk.thinking else 'off'}")
    elif word == "/clear":
        talk.messages = [m for m in talk.messages if m["role"] == "system"]
        out.note("forgotten")
    elif word == "/system":
        talk.messages = [{"role": "system", "content": rest}] if rest else []
        out.note("system prompt set; the conversation starts anew")
    elif word in ("/help", "/?"):
        out.note(HELP)
    else:
        return not line.strip()
    return True


class Conversation:
    """Messages so far, and how to ask for the next one."""

    def __init__(
        self,
        base_url: str,
        model: str,
        out: Output,
        *,
        system: str | None = None,
        thinking: bool | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.base_url = base_url
        self.model = model
        self.out = out
        self.thinking = thinking
        self.options = {
            k: v
            for k, v in (("temperature", temperature), ("max_tokens", max_tokens))
            if v is not None
        }
        self.messages: list[dict[str, Any]] = []
        if system:
            self.messages.append({"role": "system", "content": system})

    def say(self, text: str) -> dict[str, str | None]:
        """Send ``text``, print the answer as it comes, remember both, return the answer.

        Raises:
            NetworkError, EngineError: the deployment cannot be reached, or died on the way.
        """
        self.messages.append({"role": "user", "content": text})
        reasoning: list[str] = []
        content: list[str] = []
        try:
            for delta in self.stream():
                if thought := delta.get("reasoning_content"):
                    if not reasoning:
                        self.out.note(self.out.style("thinking …", "dim", err=True))
                    reasoning.append(thought)
                    if not self.out.as_json and not self.out.quiet:
                        self.out.err.write(self.out.style(harmless(thought), "dim", err=True))
                        self.out.err.flush()
                if piece := delta.get("content"):
                    if reasoning and not content:
                        self.out.note("\n")
                    content.append(piece)
                    if not self.out.as_json:
                        self.out.out.write(harmless(piece) if self.out.is_terminal else piece)
                        self.out.out.flush()
        except BaseException:
            self.messages.pop()  # the question was not answered; asking again must not repeat it
            raise
        answer = {"role": "assistant", "content": "".join(content)}
        self.messages.append(answer)
        if not self.out.as_json:
            self.out.out.write("\n")
        return {**answer, "reasoning_content": "".join(reasoning) or None}

    def stream(self) -> Iterator[dict[str, Any]]:
        """The deltas of one answer."""
        import httpx2

        body: dict[str, Any] = {
            "model": self.model,
            "messages": self.messages,
            "stream": True,
            **self.options,
        }
        if self.thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": self.thinking}
        key = settings.load().api_key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            with httpx2.stream(
                "POST",
                f"{self.base_url}/chat/completions",
                json=body,
                headers=headers,
                timeout=httpx2.Timeout(10, read=None),
            ) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise EngineError(
                        self.model, found=message(answer.text), hint=f"`qwharf logs {self.model}`"
                    )
                for line in answer.iter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        event = json.loads(line[6:])
                        if "error" in event:
                            raise EngineError(
                                self.model,
                                found=message(line[6:]),
                                hint="ask again: the engine is being restarted",
                            )
                        for choice in event.get("choices", []):
                            yield choice.get("delta") or {}
        except httpx2.HTTPError as e:
            raise NetworkError(
                self.base_url, found=str(e) or type(e).__name__, hint="`qwharf ps`"
            ) from e


def message(text: str) -> str:
    """The words of an OpenAI error body, or the body itself."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:300]
