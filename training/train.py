"""The training loop: Muon for the matrices, AdamW for the rest, batches from a worker process.

The learning rate warms up and then stays; it falls to nothing only when a run is told to finish.
A run can be stopped at any time and goes on from its last state with ``--resume``.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from training.export import write_checkpoint
from training.grow import is_matrix
from training.model import Pocket, Shape, sees
from training.muon import Muon
from training.packing import Rows, stream
from training.skills import COPYING, FULL
from training.tokens import backend, load_tokens

LENGTH = 768
ROWS = 7
WARMUP_STEPS = 60
AVERAGE = 0.99
"""Decay per step of the running average of weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a run is told."""

    folder: Path
    minutes: float
    """Wall-clock time of this run."""
    finish_minutes: float = 0.0
    """The last of them, in which the learning rate falls to nothing."""
    copying_steps: int = 250
    """The first steps, spent on copying."""
    matrix_rate: float = 4e-3
    other_rate: float = 3e-3
    seed: int = 1
    resume: bool = False
    threads: int = 2


def _work(queue: Any, seed: int, mix: dict[str, float], rows: int, length: int) -> None:
    tokens = load_tokens()
    for batch in stream(backend(tokens), tokens, seed, rows, length, mix):
        queue.put(batch)


class Source:
    """Batches from a worker process; the mix can be changed by starting another."""

    def __init__(self, seed: int, mix: dict[str, float], rows: int, length: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._queue: Any = context.Queue(24)
        arguments = (self._queue, seed, mix, rows, length)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()

    def next(self) -> Rows:
        """The next batch."""
        batch: Rows = self._queue.get(timeout=300)
        return batch

    def close(self) -> None:
        """Stop the worker."""
        self._process.kill()
        self._process.join()


def train(settings: Settings) -> None:
    """Train for the given time, leaving ``state.pt``, ``log.jsonl`` and ``checkpoint/``."""
    torch.set_num_threads(settings.threads)
    tokens = load_tokens()
    shape = Shape(tokens.size)
    model = Pocket(shape, settings.seed)
    optimizers = _optimizers(model, settings)
    average = {n: p.detach().clone() for n, p in model.named_parameters()}
    settings.folder.mkdir(parents=True, exist_ok=True)
    state_file = settings.folder / "state.pt"
    step = seen = learnt = 0
    spent = 0.0
    if settings.resume:
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        average = state["average"]
        for optimizer, held in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        step, seen, learnt, spent = (state[k] for k in ("step", "seen", "learnt", "spent"))
    copying = step < settings.copying_steps
    source = Source(1000 * settings.seed + step, COPYING if copying else FULL, ROWS, LENGTH)
    # The program starts the next worker early, so that it is ready when the mix changes.
    following = Source(1000 * settings.seed + 7, FULL, ROWS, LENGTH) if copying else None
    started = saved = time.time()
    losses: list[float] = []
    rights: list[float] = []
    end = started + settings.minutes * 60

    def save() -> None:
        state = {
            "model": model.state_dict(),
            "average": average,
            "optimizers": [o.state_dict() for o in optimizers],
            "step": step,
            "seen": seen,
            "learnt": learnt,
            "spent": spent + time.time() - started,
            "settings": {k: str(v) for k, v in asdict(settings).items()},
        }
        partial = state_file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(state_file)
        write_checkpoint(settings.folder / "checkpoint", shape, average, tokens)

    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    while time.time() < end and not stop:
        if following is not None and step >= settings.copying_steps:
            source.close()
            source, following = following, None
        batch = source.next()
        factor = min(1.0, (step + 1) / WARMUP_STEPS)
        if settings.finish_minutes:
            factor *= max(0.02, min(1.0, (end - time.time()) / (settings.finish_minutes * 60)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
        ids, positions, groups, branches, targets = (
            torch.from_numpy(a).long()
            for a in (batch.ids, batch.positions, batch.groups, batch.branches, batch.targets)
        )
        loss, right = model.loss(ids, positions, sees(groups, branches), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                average[name].lerp_(parameter, 1 - min(AVERAGE, step / (step + 20)))
        seen += int((batch.groups >= 0).sum())
        learnt += int((batch.targets >= 0).sum())
        losses.append(loss.item())
        rights.append(right.item())
        if step % 25 == 0:
            minutes = (spent + time.time() - started) / 60
            line = {
                "step": step,
                "minutes": round(minutes, 1),
                "tokens": seen,
                "learnt": learnt,
                "loss": round(sum(losses) / len(losses), 4),
                "right": round(sum(rights) / len(rights), 4),
                "rate": round(factor, 3),
            }
            losses, rights = [], []
            print(json.dumps(line), flush=True)
            with (settings.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if time.time() - saved > 150:
            save()
            saved = time.time()
    save()
    source.close()


def _optimizers(model: Pocket, settings: Settings) -> list[Any]:
    matrices = [p for n, p in model.named_parameters() if is_matrix(n, p)]
    others = [p for n, p in model.named_parameters() if not is_matrix(n, p)]
    muon = Muon(matrices, settings.matrix_rate, momentum=0.95, weight_decay=0.05)
    adam = torch.optim.AdamW(others, lr=settings.other_rate, betas=(0.9, 0.98), weight_decay=0.0)
    for optimizer, peak in ((muon, settings.matrix_rate), (adam, settings.other_rate)):
        for group in optimizer.param_groups:
            group["peak"] = peak
    return [muon, adam]
