"""What is being looked for: wishes, a machine, and the platforms that come into question."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qwharf import compatibility
from qwharf.compatibility import Device
from qwharf.errors import UsageError
from qwharf.fit.budget import cards, twins
from qwharf.fit.choosing import USUAL
from qwharf.fit.means import Means
from qwharf.fit.placing import TENSOR_PARALLEL, Site
from qwharf.fit.rules import formats_of, origin
from qwharf.fit.wishes import Wishes
from qwharf.types import Format, Gpu, Hardware, Model

AUTO = "auto"
"""A platform's name that leaves the choice to us."""


@dataclass(frozen=True, slots=True)
class Search:
    """One search; :func:`search` makes it."""

    hardware: Hardware
    wishes: Wishes
    means: Means
    platforms: tuple[str, ...]

    def usable(self, model: Model) -> tuple[str, ...]:
        """The platforms that grant the wishes that have nothing to do with memory."""
        kv, context = self.wishes.kv_cache_type, self.wishes.context_tokens or 0
        own = model.architecture.max_position_embeddings
        return tuple(
            name
            for name in self.platforms
            if (kv is None or kv in self.kv_types(name))
            and (context <= own or compatibility.facts(name).stretches)
            and (not self.wishes.adapters or compatibility.facts(name).adapters.runs)
        )

    def preferred(self, model: Model) -> list[str]:
        """The usable platforms in the order in which they are taken: GPUs first, and on one kind
        of device as the platforms' own files say.
        """
        return sorted(self.usable(model), key=self._order)

    def _order(self, platform: str) -> tuple[bool, int]:
        kind = self.place(platform)[0].kind
        return kind == "cpu", compatibility.facts(platform).preference.get(kind, 99)

    def kv_types(self, platform: str) -> tuple[str, ...]:
        """The types of KV cache that the platform has here."""
        device, _ = self.place(platform)
        return compatibility.facts(platform).kv_types(device.kind)

    def place(self, platform: str) -> tuple[Device, tuple[Gpu, ...]]:
        """What the platform computes with here: GPUs that it serves, else the processor."""
        facts = compatibility.facts(platform)
        if self.hardware.gpus and self.wishes.gpu and self.means.engine(platform).gpu:
            if self.hardware.unified_memory:
                gpus = self.hardware.gpus[:1]
            elif platform in TENSOR_PARALLEL:
                gpus = twins(self.hardware)
            else:
                gpus = cards(self.hardware)
            if gpus and facts.serves(gpus[0].vendor):
                return compatibility.device_of(self.hardware, gpus[0]), gpus
        return compatibility.device_of(self.hardware, None), ()

    def site(self, model: Model, platform: str, format: Format = USUAL) -> Site:
        """``model`` in ``format`` on ``platform`` here."""
        device, gpus = self.place(platform)
        types = compatibility.facts(platform).kv_types(device.kind)
        return Site(
            model=model,
            format=format,
            platform=platform,
            hardware=self.hardware,
            device=device,
            gpus=gpus,
            version=self.means.engine(platform).version,
            kv_cache_type=self.wishes.kv_cache_type or (types[0] if types else "f16"),
            parallel=self.wishes.parallel,
        )

    def formats(self, site: Site) -> tuple[Format, ...]:
        """The formats that can be had of the site's model and that its platform can run."""
        wish = self.wishes.format
        found = []
        for format in formats_of(site.model) if wish is None else (wish,):
            asked = wish is not None or format == site.model.path_format
            cell = site.verdict_on(format).cell
            offered = asked or (cell is not None and cell.unasked)
            if offered and self.obstacle(site, format) is None and origin(site.model, format):
                found.append(format)
        return tuple(found)

    def obstacle(self, site: Site, format: Format) -> str | None:
        """Why the platform cannot run the model in ``format`` here; ``None``: it can."""
        verdict = site.verdict_on(format)
        return None if verdict.runs else verdict.why

    def sites(self, model: Model) -> list[Site]:
        """Every platform and format that comes into question for ``model``."""
        patterns = [self.site(model, p) for p in self.usable(model)]
        return [replace(s, format=f) for s in patterns for f in self.formats(s)]


def search(hardware: Hardware, wishes: Wishes, means: Means) -> Search:
    """The search that ``wishes`` ask for.

    Raises:
        UsageError: there is no such platform, or it cannot be driven.
    """
    among = means.platforms
    if wishes.platform is not None and wishes.platform.strip().lower() != AUTO:
        name = compatibility.canonical(wishes.platform)
        if name is None or name not in means.platforms:
            raise UsageError(
                wishes.platform,
                found="no platform of that name"
                if name is None
                else "a platform that is known, but not driven",
                expected=" or ".join((AUTO, *means.platforms)),
                hint="leave --platform out to get the best that fits",
            )
        among = (name,)
    return Search(hardware, wishes, means, among)
