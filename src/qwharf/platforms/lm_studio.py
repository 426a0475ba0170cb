"""The platform ``lmstudio``: a running LM Studio is given one more model.

The weights are linked into its folder of models, with a description
(:mod:`qwharf.platforms.lm_studio_home`); then they are loaded over REST v1 with the context asked
for, and what was applied is read back. LM Studio itself is never started: it is an application
with windows, and the user's to open.
"""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qwharf import settings
from qwharf.artifacts import lm_studio_models
from qwharf.artifacts.store import Store
from qwharf.artifacts.uses import Placed, Records
from qwharf.errors import Conflict, EngineError, FormatUnavailable, QwharfError, UsageError
from qwharf.formats.names import FORMATS
from qwharf.platforms import llama_check, lm_studio_api, lm_studio_home, wishes
from qwharf.platforms.base import Applied, Availability, Served, Step, Tell
from qwharf.platforms.lm_studio_api import START_HINT, LmStudio
from qwharf.platforms.placement import Placement, hashed, share_or_copy, sources
from qwharf.platforms.service_http import is_local
from qwharf.types import DeploymentSpec, Format

LOCK = "uses-lmstudio"
NOTICE_SECONDS = 30.0
"""For LM Studio to notice a new file in its folder."""
INSTALL = "install it from https://lmstudio.ai, open it once, and start its server"


class LmStudioPlatform:
    """The platform ``lmstudio``. Asks the environment and LM Studio's own files at every call."""

    name = "lmstudio"

    def engine(self) -> str:
        """``lmstudio 0.4.12``, where it runs and says so."""
        return f"lmstudio {self.availability().version or '(version unknown)'}"

    def availability(self) -> Availability:
        """Whether its server answers, or it is installed here."""
        url = lm_studio_api.url()
        if LmStudio(url).is_there():
            version = lm_studio_api.version() if is_local(url) else None
            return Availability(installed=True, version=version, where=url)
        program = lm_studio_api.installed() if is_local(url) else None
        if program is not None:
            return Availability(
                installed=True,
                version=None,
                where=str(program),
                reason=f"its server does not answer at {url}",
                hint=START_HINT,
            )
        return Availability(
            installed=False,
            version=None,
            where=None,
            reason=f"no LM Studio answers at {url}"
            + (", and none is installed for this user" if is_local(url) else ""),
            hint=INSTALL if is_local(url) else f"mend {lm_studio_api.URL_VARIABLE}",
        )

    def formats(self) -> tuple[Format, ...]:
        """Every GGUF quantisation, and MLX, which it runs on Apple silicon alone."""
        return tuple(f for f in FORMATS if f.container in ("gguf", "mlx"))

    def check(self, spec: DeploymentSpec) -> None:
        """Refuse what LM Studio would refuse, or do otherwise than asked in silence."""
        here = self.availability()
        if not here.installed:
            raise FormatUnavailable(
                spec.name, found=here.reason, expected="LM Studio", hint=here.hint
            )
        if here.reason:
            raise EngineError("LM Studio", found=here.reason, expected="", hint=here.hint)
        if spec.format not in self.formats() or (
            spec.format.container == "mlx" and not _is_apple_silicon()
        ):
            raise FormatUnavailable(
                spec.name,
                found=str(spec.format),
                expected="a GGUF format, or MLX on Apple silicon",
                hint="convert it: `qwharf convert`, or try `--format gguf:q4_k_m`",
            )
        llama_check.check_numbers(spec, "LM Studio", ("f16",))
        _check_context(spec)
        wishes.refuse_adapters(spec)
        if spec.format.container == "gguf":
            llama_check.check_file(spec)

    def steps(self, spec: DeploymentSpec) -> tuple[Step, ...]:
        """What :meth:`deploy` would do."""
        store = Store(settings.load().store_dir)
        home = lm_studio_models.home()
        files = lm_studio_home.layout(
            home, lm_studio_models.models_folder(home), spec, sources(store, spec)
        )
        found = [
            Step(what=share_or_copy(s.path, path), where=str(path), content=str(s.path))
            for path, s in files.weights.items()
        ]
        for path, data in files.texts.items():
            found.append(Step(what="write", where=str(path), content=data.decode()))
        load = f"POST {lm_studio_api.url()}/api/v1/models/load"
        body = load_request(spec, lm_studio_home.key_of(spec))
        return (*found, Step(what="request", where=load, content=body))

    def deploy(self, spec: DeploymentSpec, tell: Tell) -> Served:
        """Link the weights, load them, read back what was applied."""
        store = Store(settings.load().store_dir)
        api = LmStudio(lm_studio_api.url())
        if not is_local(api.url):
            raise EngineError(
                "LM Studio",
                found=f"a server on another machine ({api.url}), whose folders are out of reach",
                expected="one on this machine",
                hint="run qwharf there, or adopt what it serves: `qwharf add`",
            )
        api.models()  # it must be there before anything is placed
        new = Records(store.root).read(self.name, spec.name) is None
        try:
            with store.working_on(LOCK, lambda: tell("waiting for another deployment's turn")):
                self._place(spec, store, tell)
            key = _await_key(spec, api, tell)
            instance = self._load(spec, api, key, tell)
            return _read_back(spec, api, instance)
        except BaseException:
            if new:
                with contextlib.suppress(QwharfError):
                    self.release(spec)
            raise

    def status(self, spec: DeploymentSpec) -> Served | None:
        """The model as LM Studio has it. One that is not loaded is gone: LM Studio would load it
        again by itself, but not with the context asked for.
        """
        api = LmStudio(lm_studio_api.url())
        if Records(Store(settings.load().store_dir).root).read(self.name, spec.name) is None:
            return None
        for model in _ours(spec, api.models()):
            for instance in _instances(model):
                if _context(instance) == spec.context_tokens:
                    return _served(spec, api, instance)
        return None

    def release(self, spec: DeploymentSpec) -> None:
        """Unload it, and take back what was placed."""
        store = Store(settings.load().store_dir)
        placed = Records(store.root).read_or_drop(self.name, spec.name)
        if placed is None:
            return
        with contextlib.suppress(EngineError):
            api = LmStudio(lm_studio_api.url())
            for model in _ours(spec, api.models()):
                for instance in _instances(model):
                    api.unload(str(instance.get("id")))
        home = placed.root or lm_studio_models.home()
        with store.working_on(LOCK):
            placement = Placement(Records(store.root), placed, owner="LM Studio", may_copy=False)
            tidy = lm_studio_home.tidy(home, lm_studio_models.models_folder(home))
            placement.take_back(lambda _: False, tidy)

    def log(self, spec: DeploymentSpec, lines: int) -> Sequence[str]:
        """LM Studio keeps its log to itself (`lms log stream`)."""
        return ()

    # ---------------------------------------------------------------------------------- parts

    def _place(self, spec: DeploymentSpec, store: Store, tell: Tell) -> None:
        records = Records(store.root)
        key = lm_studio_home.key_of(spec)
        for other in records.all(self.name):
            if other.deployment != spec.name and other.model == key:
                raise Conflict(
                    spec.name,
                    found=f"`{other.deployment}`, which LM Studio would call `{key}` too",
                    hint="deploy under another name: `--name`",
                )
        home = lm_studio_models.home()
        models = lm_studio_models.models_folder(home)
        files = lm_studio_home.layout(home, models, spec, hashed(store, spec, tell))
        placed = Placed(
            platform=self.name,
            deployment=spec.name,
            artifact_id=spec.artifact_id,
            model=key,
            root=home,
        )
        placement = Placement(records, placed, owner="LM Studio", may_copy=spec.may_copy)
        tidy = lm_studio_home.tidy(home, models)
        try:
            how = lm_studio_home.place(placement, files)
        except BaseException:
            if placement.before is None:
                placement.take_back(lambda _: False, tidy)
            raise
        placement.settle(lambda _: False, tidy)
        tell(f"the weights in LM Studio's folder: {how}")

    def _load(self, spec: DeploymentSpec, api: LmStudio, key: str, tell: Tell) -> str:
        """Load one instance with the context asked for, unless there is one; its id."""
        for model in _ours(spec, api.models()):
            for instance in _instances(model):
                if _context(instance) == spec.context_tokens:
                    return str(instance.get("id"))
                api.unload(str(instance.get("id")))  # of an earlier context
        tell("loading the weights")
        told = api.load(load_request(spec, key))
        instance_id = told.get("instance_id")
        if not isinstance(instance_id, str):
            raise EngineError(
                "LM Studio", found=f"no instance in its answer: {told!r:.200}", expected="its id"
            )
        applied = told.get("load_config")
        context = _context({"config": applied}) if isinstance(applied, dict) else None
        if context is not None and context != spec.context_tokens:
            api.unload(instance_id)
            raise _other_context(spec, context)
        return instance_id


def load_request(spec: DeploymentSpec, key: str) -> dict[str, Any]:
    """The body that loads the model."""
    return {"model": key, "context_length": spec.context_tokens, "echo_load_config": True}


def _check_context(spec: DeploymentSpec) -> None:
    most = spec.architecture.max_position_embeddings
    if spec.context_tokens > most:
        raise UsageError(
            "context_tokens",
            found=f"{spec.context_tokens:,}",
            expected=f"at most {most:,} with these weights: LM Studio has no way to stretch "
            "positions (YaRN)",
            hint=f"choose --context {most} or less, or --platform llama.cpp",
        )


def _is_apple_silicon() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


# -------------------------------------------------------------------------------- finding ours


def _ours(spec: DeploymentSpec, models: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The entries of the model: as described in ``model.yaml`` first, then of its weights alone.

    LM Studio gives weights a key with or without the publisher, as it likes.
    """
    wanted, weights = lm_studio_home.key_of(spec), lm_studio_home.weights_key(spec)
    keys = [wanted, weights, weights.partition("/")[2], wanted.partition("/")[2]]

    def rank(model: Mapping[str, Any]) -> int | None:
        key = str(model.get("key")).casefold().partition("@")[0]
        ours = str(model.get("publisher")).casefold() == lm_studio_home.PUBLISHER
        return keys.index(key) if key in keys and (ours or "/" in key) else None

    ranked = [(r, m) for m in models if (r := rank(m)) is not None]
    return [m for _, m in sorted(ranked, key=lambda found: found[0])]


def _await_key(
    spec: DeploymentSpec,
    api: LmStudio,
    tell: Tell,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """The key under which LM Studio lists the model, once it has noticed it."""
    end = time.monotonic() + NOTICE_SECONDS
    told = False
    while True:
        found = _ours(spec, api.models())
        if found:
            key = str(found[0].get("key"))
            if key.casefold() != lm_studio_home.key_of(spec):
                tell(
                    "LM Studio lists the weights, but not yet their description: its thinking "
                    "switch may show after its next start"
                )
            return key
        if time.monotonic() > end:
            raise EngineError(
                "LM Studio",
                found=f"no model `{lm_studio_home.key_of(spec)}` in its list after "
                f"{NOTICE_SECONDS:.0f} seconds",
                expected=f"that it looks into {lm_studio_models.models_folder()}",
                hint="check the folder of models in its settings, or start it again",
            )
        if not told:
            tell("waiting for LM Studio to notice the new model")
            told = True
        pause(0.25)


def _instances(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = model.get("loaded_instances")
    return [x for x in found if isinstance(x, dict)] if isinstance(found, list) else []


def _context(instance: Mapping[str, Any]) -> int | None:
    config = instance.get("config")
    found = config.get("context_length") if isinstance(config, dict) else None
    return found if isinstance(found, int) else None


def _read_back(spec: DeploymentSpec, api: LmStudio, instance_id: str) -> Served:
    """The instance as LM Studio now lists it.

    Raises:
        EngineError: it does not, or has another context.
    """
    for model in _ours(spec, api.models()):
        for instance in _instances(model):
            if instance.get("id") == instance_id:
                if _context(instance) != spec.context_tokens:
                    raise _other_context(spec, _context(instance))
                return _served(spec, api, instance)
    raise EngineError(
        lm_studio_home.key_of(spec),
        found=f"no instance `{instance_id}` in LM Studio's memory",
        expected="the one that it has just loaded",
        hint="see LM Studio's own log: `lms log stream`",
    )


def _other_context(spec: DeploymentSpec, context: int | None) -> EngineError:
    return EngineError(
        lm_studio_home.key_of(spec),
        found=f"loaded with a context of {context} tokens",
        expected=f"{spec.context_tokens:,}",
        hint="a smaller --context may help",
    )


def _served(spec: DeploymentSpec, api: LmStudio, instance: Mapping[str, Any]) -> Served:
    version = lm_studio_api.version()
    return Served(
        url=api.url,
        model=str(instance.get("id")),
        engine=f"lmstudio {version}" if version else "lmstudio",
        applied=Applied(context_tokens=_context(instance)),
    )
