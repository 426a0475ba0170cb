"""Logits of the embedded llama.cpp, position by position, over HTTP.

Its server tells the probabilities of the token that it would generate next, all of them if asked
to, but none of a prompt's. So each prefix of a chunk is sent with one token to generate; what came
before is still in its cache. That costs one small evaluation and one answer as long as the
vocabulary per position: milliseconds for the pocket model, too much for 151,936 tokens.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from qwharf.errors import EngineError, UsageError
from qwharf.fidelity.weights import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHILD = "qwharf.platforms.llama_server"
READY = "ready at "
MAX_ANSWERED = 20_000_000
"""Probabilities that are worth asking for in all; each takes some 80 bytes of JSON."""
PATIENCE_SECONDS = 600.0
LOG_LINES = 30


def check_size(vocabulary: int, positions: int) -> None:
    """Whether so many probabilities can be asked for.

    Raises:
        UsageError: it would take far too long.
    """
    most = max(2, MAX_ANSWERED // vocabulary)
    if positions > most:
        raise UsageError(
            "--engine",
            found=f"{positions:,} positions of {vocabulary:,} probabilities each",
            expected=f"at most {most:,} positions",
            hint=f"take fewer with --tokens {most}, or leave --engine out",
        )


class EngineLogits:
    """One model in a llama.cpp of its own; a context manager that ends it."""

    def __init__(self, path: Path, *, vocabulary: int, context_tokens: int) -> None:
        """Remember what to start; see :meth:`__enter__`."""
        self.path = path
        self.vocabulary = vocabulary
        self.context_tokens = context_tokens
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self._process: subprocess.Popen[str] | None = None
        self._url = ""

    def __enter__(self) -> EngineLogits:
        """Start the engine.

        Raises:
            EngineError: it did not come up; carries the end of its log.
        """
        context = -(-(self.context_tokens + 1) // 256) * 256
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", CHILD, "--model", str(self.path), "--port", "0"),
                *("--ctx-size", str(context), "--load-mode", "none", "--die-with-parent"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            self._url = self._await_ready(self._process.stderr)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._drain, daemon=True).start()
        return self

    def _await_ready(self, log: IO[str] | None) -> str:
        for line in log or ():
            self.log.append(line.rstrip())
            if READY in line:
                return line.split(READY, 1)[1].strip()
        raise EngineError(
            str(self.path),
            found=" | ".join(list(self.log)[-3:]) or "no word",
            expected="llama.cpp to load it",
            hint="leave --engine out: the forward pass needs no engine",
        )

    def _drain(self) -> None:
        process = self._process
        if process is not None and process.stderr is not None:
            self.log.extend(line.rstrip() for line in process.stderr)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the engine."""
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stderr):
            if stream is not None:
                stream.close()
        self._process = None

    def logits(
        self, chunks: Sequence[Sequence[int]], progress: Progress | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Log probabilities of every position but the last of each chunk (its row is empty).

        Args:
            chunks: token ids.
            progress: ``(label, positions done, of all)``.

        Raises:
            EngineError: the engine answers with something else.
        """
        import httpx2

        total, done = sum(len(chunk) - 1 for chunk in chunks), 0
        with httpx2.Client(base_url=self._url, timeout=PATIENCE_SECONDS) as client:
            for chunk in chunks:
                made = np.full((len(chunk), self.vocabulary), -np.inf, np.float32)
                for end in range(1, len(chunk)):
                    self._fill(made[end - 1], client, chunk[:end])
                    done += 1
                    if progress is not None:
                        progress("engine", done, total)
                yield made

    def _fill(self, row: NDArray[np.float32], client: Any, prompt: Sequence[int]) -> None:
        import httpx2

        body = {
            "prompt": list(prompt),
            "n_predict": 1,
            "n_probs": self.vocabulary,
            "cache_prompt": True,
            "temperature": 1.0,  # 0 would report a certainty instead of probabilities
        }
        try:
            answer = client.post("/completion", json=body)
            found = answer.json()["completion_probabilities"][0]["top_logprobs"]
            for entry in found:
                row[entry["id"]] = entry["logprob"]
        except (httpx2.HTTPError, ValueError, LookupError, TypeError) as e:
            raise EngineError(
                str(self.path),
                found=f"{type(e).__name__}: {str(e)[:200]}",
                expected="the probabilities of the next token",
                hint="leave --engine out: the forward pass needs no engine",
            ) from e
        if not np.isfinite(row).all():
            raise EngineError(
                str(self.path),
                found=f"{int(np.isfinite(row).sum()):,} probabilities",
                expected=f"{len(row):,}, one per token of the vocabulary",
            )
