"""The platform ``ollama``: a running Ollama is asked to take one more model.

The weights come to it by :mod:`qwharf.platforms.ollama_shelf`, in the form that
:mod:`qwharf.platforms.ollama_store` gives them; what is refused is in
:mod:`qwharf.platforms.ollama_check`. Then the model is loaded, to stay, with the load options that
every request must repeat, and what was applied is read back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from qwharf import settings
from qwharf.artifacts.store import Store
from qwharf.errors import EngineError, FormatUnavailable, QwharfError
from qwharf.formats.names import FORMATS
from qwharf.platforms import (
    llama_check,
    ollama_address,
    ollama_check,
    ollama_process,
    ollama_shelf,
)
from qwharf.platforms.base import Applied, Availability, Served, Step, Tell
from qwharf.platforms.ollama_api import START_HINT, Ollama
from qwharf.platforms.ollama_shelf import Shelf
from qwharf.platforms.ollama_store import load_options, model_of, name_of
from qwharf.platforms.service_http import is_local
from qwharf.types import DeploymentSpec, Format

INSTALL = "install it from https://ollama.com/download, or set OLLAMA_HOST to one that runs"
KEEP_LOADED = -1
"""``keep_alive``: until it is told otherwise."""


class OllamaPlatform:
    """The platform ``ollama``. Reads ``OLLAMA_HOST`` and ``OLLAMA_MODELS`` at every call."""

    name = "ollama"

    def engine(self) -> str:
        """``ollama 0.33.0``."""
        return f"ollama {self.availability().version or '(not installed)'}"

    def availability(self) -> Availability:
        """Whether an Ollama answers, or is installed here so that it can be started."""
        url = ollama_address.url()
        local = is_local(url)
        version, where = Ollama(url).version(), url
        if version is None:
            program = ollama_process.program() if local else None
            if program is None:
                return Availability(
                    installed=False,
                    version=None,
                    where=None,
                    reason=f"no Ollama answers at {url}"
                    + (", and there is no `ollama` on the PATH" if local else ""),
                    hint=INSTALL if local else "start it there, or mend OLLAMA_HOST",
                )
            version, where = ollama_process.program_version(program), program
        old = ollama_check.is_too_old(version)
        oldest = ".".join(map(str, ollama_check.OLDEST))
        return Availability(
            installed=not old,
            version=version,
            where=where,
            reason=f"Ollama {version} does not use a GGUF's own chat template" if old else "",
            hint=f"update it to {oldest} or newer" if old else "",
        )

    def formats(self) -> tuple[Format, ...]:
        """Every GGUF quantisation."""
        return tuple(f for f in FORMATS if f.container == "gguf")

    def check(self, spec: DeploymentSpec) -> None:
        """Refuse what Ollama would refuse, or do otherwise than asked in silence."""
        here = self.availability()
        if not here.installed:
            raise FormatUnavailable(spec.name, found=here.reason, expected="Ollama", hint=here.hint)
        llama_check.check_format(spec)
        ollama_check.check_parameters(spec)
        ollama_check.check_file(spec)

    def steps(self, spec: DeploymentSpec) -> tuple[Step, ...]:
        """What :meth:`deploy` would do."""
        config = settings.load()
        api = Ollama(ollama_address.url())
        found = ollama_shelf.steps(Store(config.store_dir), api, spec)
        if api.version() is None and is_local(api.url):
            content = {
                "environment": ollama_process.start_environment(spec),
                "log": str(ollama_process.log_path(config)),
            }
            # Before anything is placed: at its start Ollama deletes what no manifest names yet.
            found.insert(0, Step(what="start", where="ollama serve", content=content))
        load = Step(
            what="request", where=f"POST {api.url}/api/generate", content=load_request(spec)
        )
        return (*found, load)

    def deploy(self, spec: DeploymentSpec, tell: Tell) -> Served:
        """Place the weights, load them, read back what was applied."""
        config = settings.load()
        api = self._server(spec, tell, config)
        shelf = Shelf(Store(config.store_dir), api)
        new = shelf.record(spec) is None
        try:
            shelf.bring(spec, tell)
            tell("loading the weights")
            api.load(load_request(spec))
            return _read_back(spec, api)
        except BaseException:
            if new:
                with contextlib.suppress(QwharfError):
                    self.release(spec)
            raise

    def _server(self, spec: DeploymentSpec, tell: Tell, config: settings.Settings) -> Ollama:
        """A server that answers, started if need be."""
        api = Ollama(ollama_address.url())
        version = api.version()
        if version is None:
            program = ollama_process.program() if is_local(api.url) else None
            if program is None:
                raise EngineError(
                    "Ollama",
                    found=f"no answer from {api.url}",
                    expected="its server",
                    hint=START_HINT,
                )
            tell("starting `ollama serve`")
            ollama_process.start(program, api, spec, config)
            version = api.version()
        elif is_local(api.url):
            ollama_check.check_server(spec, api.url, tell)
        ollama_check.check_version(version)
        return api

    def status(self, spec: DeploymentSpec) -> Served | None:
        """The model as Ollama has it; also where it sleeps, for it wakes by itself as it was."""
        api = Ollama(ollama_address.url())
        if not Shelf(Store(settings.load().store_dir), api).holds(spec):
            return None
        return _served(spec, api, api.loaded_as(str(name_of(spec))))

    def release(self, spec: DeploymentSpec) -> None:
        """Unload it, take back what was placed, and end the server if we alone used it."""
        config = settings.load()
        shelf = Shelf(Store(config.store_dir), Ollama(ollama_address.url()))
        shelf.take_back(spec)
        server = ollama_process.started(config)
        if server is not None and shelf.is_empty():
            with contextlib.suppress(EngineError):
                if Ollama(server.url).loaded():
                    return  # somebody else has a model in it
            ollama_process.stop(config)

    def log(self, spec: DeploymentSpec, lines: int) -> Sequence[str]:
        """The end of the server's log: ours where we started it, else the application's."""
        for path in ollama_process.log_files(settings.load()):
            found = ollama_process.tail(path, lines)
            if found:
                return found
        return ()


def load_request(spec: DeploymentSpec) -> dict[str, Any]:
    """The body that loads the model: ``shift`` is a load option too, and requests say no to it."""
    return {
        "model": model_of(spec),
        "keep_alive": KEEP_LOADED,
        "stream": False,
        "shift": False,
        "options": load_options(spec),
    }


def _read_back(spec: DeploymentSpec, api: Ollama) -> Served:
    """What was applied.

    Raises:
        EngineError: less context than was asked for.
    """
    entry = api.loaded_as(str(name_of(spec)))
    served = _served(spec, api, entry)
    context = served.applied.context_tokens
    if context is None or context < spec.context_tokens:
        raise EngineError(
            model_of(spec),
            found="no such model in Ollama's memory"
            if entry is None
            else f"a context of {context} tokens",
            expected=f"{spec.context_tokens:,}",
            hint="see `qwharf logs`; a smaller --context may help",
        )
    return served


def _served(spec: DeploymentSpec, api: Ollama, entry: Mapping[str, Any] | None) -> Served:
    found = {k: v for k, v in (entry or {}).items() if isinstance(v, int)}
    process = ollama_process.listener(api.url) if is_local(api.url) else None
    return Served(
        url=api.url,
        model=model_of(spec),
        engine=f"ollama {api.version() or ''}".strip(),
        applied=Applied(
            all_bytes=found.get("size"),
            context_tokens=found.get("context_length"),
            lines={"on the GPU": found["size_vram"]} if "size_vram" in found else {},
        ),
        pid=process.pid if process else None,
    )
