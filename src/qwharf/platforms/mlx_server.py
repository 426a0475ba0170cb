"""mlx-lm's HTTP server with what a deployment needs beside it. Run, never imported by us.

Started by the daemon with the interpreter of mlx-lm's own environment, so it uses nothing of
qwharf's. It takes ``mlx_lm.server``'s options, read by its own parser, and these of its own:
``--alias``, ``--context-length``, ``--rope-scaling``, ``--cpu``, ``--die-with-parent``. Beside its
routes there is ``POST /tokenize`` of a conversation, as vLLM has it. By itself ``mlx_lm.server``
0.32

- calls itself healthy before the model is loaded, and lives on when loading failed,
- loads whatever model or adapter a request names, from disk or the Hub,
- knows no limit of context, and cannot be told of YaRN,
- breaks off ``GET /v1/models`` where there is no Hugging Face cache,
- breaks off a request whose whole prompt it has kept from an earlier one,
- is many times slower on a processor than MLX can be: see :func:`suit_processor`.

The log goes to stderr. Exit codes: 0 asked to stop, 1 could not start or died, 2 bad options.
"""

import argparse
import functools
import json
import os
import signal
import stat
import sys
import threading
import traceback
from typing import Any

TOO_LONG = threading.local()
"""Set in a request's thread when its prompt exceeds the context: a 400, not mlx-lm's 404."""


def say(text: str) -> None:
    """One line of our own in the log."""
    sys.stderr.write(f"qwharf-engine: {text}\n")
    sys.stderr.flush()


def options() -> argparse.ArgumentParser:
    """The options that are not mlx_lm.server's."""
    p = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    p.add_argument("--alias", required=True, help="how requests call the model")
    p.add_argument("--context-length", type=int, required=True, metavar="TOKENS")
    p.add_argument("--rope-scaling", type=json.loads, metavar="JSON")
    p.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    p.add_argument("--die-with-parent", action="store_true", help="end when stdin does")
    return p


def main() -> None:
    """Serve until asked to stop."""
    own, rest = options().parse_known_args()
    sys.argv = ["mlx_lm.server", *rest]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop())
    if own.die_with_parent and is_pipe(0):
        threading.Thread(target=await_eof, daemon=True).start()
    say(f"starting, process {os.getpid()}")
    try:
        extend(own)
    except SystemExit as e:
        os._exit(e.code if isinstance(e.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # mlx-lm's thread would keep the process


def stop() -> None:
    """End now: whoever told us to has waited for the answers that matter."""
    say("stopping")
    os._exit(0)


def is_pipe(descriptor: int) -> bool:
    """Whether a file descriptor is the end of a pipe."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def await_eof() -> None:
    """Wait for the parent to go."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    stop()


def check_messages(messages: Any) -> None:
    """Stands where mlx-lm fetches images that a request names: nothing is fetched. What is no list
    of messages would end its thread, and so the process.
    """
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages must be a list of messages")
    if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
        raise ValueError("each message must be an object with a role")


def suit_processor(mx: Any) -> None:
    """Let MLX compute on the processor, and in the ways that are quick there.

    - Where there is a C++ compiler it runs that to fuse operations, anew for every temperature that
      is asked for, and answers wait for it. Unfused they take hardly longer.
    - It multiplies by quantised weights at 0.2 GFLOP/s where the other side has 16 bits, at 1.2 to
      1.9 where it has 32 (one core of an x86-64 processor, MLX 0.32.4), and adds up in 16 bits; by
      those of chosen experts in 16 bits not at all. What goes in and comes out keeps its type, and
      so does the cache.
    """
    mx.set_default_device(mx.cpu)
    mx.disable_compile()
    for product in ("quantized_matmul", "gather_qmm", "gather_mm"):
        setattr(mx, product, in_32_bits(mx, getattr(mx, product)))


def in_32_bits(mx: Any, multiply: Any) -> Any:
    """One of MLX's products, computed in float32, where it would be in fewer bits."""
    narrow = (mx.bfloat16, mx.float16)

    def widened(value: Any) -> Any:
        wide = isinstance(value, mx.array) and value.dtype in narrow
        return value.astype(mx.float32) if wide else value

    @functools.wraps(multiply)
    def multiplied(x: Any, *others: Any, **more: Any) -> Any:
        more = {name: widened(value) for name, value in more.items()}
        made = multiply(widened(x), *map(widened, others), **more)
        return made.astype(x.dtype) if x.dtype in narrow else made

    return multiplied


def extend(own: argparse.Namespace) -> None:
    """Put our parts in the places of mlx_lm.server's, and run it."""
    import mlx.core as mx

    if own.cpu:
        suit_processor(mx)
    import mlx_lm.server as server

    loaded = threading.Event()

    class Provider(server.ModelProvider):  # type: ignore[misc]
        """Has one model, whatever a request asks for."""

        def load(
            self, model_path: str, adapter_path: Any = None, draft_model_path: Any = None
        ) -> Any:
            known = (own.alias, "default_model")
            if model_path not in known or adapter_path is not None:
                raise ValueError(f"the model {adapter_path or model_path!r} does not exist")
            if draft_model_path not in (None, "default_model"):
                raise ValueError(f"the draft model {draft_model_path!r} does not exist")
            return super().load("default_model", None, "default_model")

        def load_default(self) -> None:
            super().load_default()
            say(f"weights take {mx.get_active_memory()} bytes")
            say(f"context of {own.context_length} tokens")
            loaded.set()

    class Prompts(server.LRUPromptCache):  # type: ignore[misc]
        """Prompts kept for later; the last token of a new one is never taken from them, or nothing
        would be left to compute, which ends a request in the middle.
        """

        def fetch_nearest_cache(self, model: Any, tokens: Any) -> Any:
            cache, rest = super().fetch_nearest_cache(model, tokens[:-1])
            return cache, [*rest, tokens[-1]]

    class Generator(server.ResponseGenerator):  # type: ignore[misc]
        """Keeps to the context, and ends the process when it cannot go on."""

        def _run_generate(self) -> None:
            try:
                self._generate()
            except BaseException:
                traceback.print_exc()
                os._exit(1)

        def _tokenize(self, tokenizer: Any, request: Any, args: Any) -> Any:
            found = super()._tokenize(tokenizer, request, args)
            room = own.context_length - len(found[0])
            if room < 1:
                raise OverflowError(
                    f"the prompt has {len(found[0])} tokens, the context {own.context_length}"
                )
            args.max_tokens = min(args.max_tokens, room)
            return found

        def tokens(self, request: Any, template_variables: Any) -> list[int]:
            """What a conversation is to the model, found as when it is answered."""
            provider = self.model_provider
            args = argparse.Namespace(chat_template_kwargs=template_variables)
            return list(super()._tokenize(provider.tokenizer, request, args)[0])

        def generate(self, *args: Any, **kwargs: Any) -> Any:
            TOO_LONG.now = False
            try:
                return super().generate(*args, **kwargs)
            except OverflowError:
                TOO_LONG.now = True
                raise

    class Handler(server.APIHandler):  # type: ignore[misc]
        """Answers for one model, without a look at the Hub's cache."""

        path: str
        only_tokens = False

        def _set_completion_headers(self, status_code: int = 200) -> None:
            if status_code == 404 and getattr(TOO_LONG, "now", False):
                status_code = 400
            super()._set_completion_headers(status_code)

        def answer(self, body: Any, status_code: int = 200) -> None:
            """A whole answer."""
            content = json.dumps(body).encode()
            self._set_completion_headers(status_code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def handle_models_request(self) -> None:
            model = {"id": own.alias, "object": "model", "created": self.created}
            self.answer({"object": "list", "data": [model]})

        def do_POST(self) -> None:
            # A conversation to be tokenised is read and checked like one to be answered.
            self.only_tokens = self.path == "/tokenize"
            if self.only_tokens:
                self.path = "/v1/chat/completions"
            super().do_POST()

        def handle_completion(self, request: Any, stop_words: Any) -> None:
            if not self.only_tokens:
                super().handle_completion(request, stop_words)
                return
            try:
                found = self.response_generator.tokens(request, self.chat_template_kwargs)
            except Exception as e:
                self.answer({"error": str(e)}, 400)
            else:
                self.answer({"count": len(found), "tokens": found})

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            if self.path != "/health":  # the daemon asks often
                super().log_request(code, size)

    def run(host: str, port: int, provider: Any) -> None:
        say("loading the model")
        options = provider.cli_args
        kept = Prompts(options.prompt_cache_size, options.prompt_cache_bytes or 1 << 63)
        generator = Generator(provider, kept)
        loaded.wait()
        server._run_http_server(host, port, generator, handler_class=Handler)

    server.ModelProvider = Provider
    server.run = run
    server._inline_image_urls = check_messages
    if own.rope_scaling is not None:
        positions = int(
            own.rope_scaling["original_max_position_embeddings"] * own.rope_scaling["factor"]
        )
        changed = {"rope_scaling": own.rope_scaling, "max_position_embeddings": positions}
        server.load = functools.partial(server.load, model_config=changed)
    server.main()


if __name__ == "__main__":
    main()
