"""What is being looked for: wishes, a machine, and the platforms that come into question."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qwharf.errors import UsageError
from qwharf.fit.choosing import USUAL
from qwharf.fit.engines import Site
from qwharf.fit.rules import PLATFORMS, PlatformInfo, formats_of, origin, platform_name
from qwharf.fit.wishes import Wishes
from qwharf.types import Format, Hardware, Model


@dataclass(frozen=True, slots=True)
class Search:
    """One search; :func:`search` makes it."""

    hardware: Hardware
    wishes: Wishes
    platforms: tuple[PlatformInfo, ...]
    only_driven: bool
    """Whether the plan must be one that ``up`` can carry out today."""

    def usable(self, model: Model) -> tuple[PlatformInfo, ...]:
        """The platforms that grant the wishes that have nothing to do with memory."""
        kv, context = self.wishes.kv_cache_type, self.wishes.context_tokens or 0
        own = model.architecture.max_position_embeddings
        return tuple(
            p
            for p in self.platforms
            if (kv is None or kv in p.kv_cache_types) and (context <= own or p.stretches)
        )

    def site(self, model: Model, platform: PlatformInfo, format: Format = USUAL) -> Site:
        """``model`` in ``format`` on ``platform`` here."""
        return Site(
            model=model,
            format=format,
            platform=platform.name,
            hardware=self.hardware,
            kv_cache_type=self.wishes.kv_cache_type or platform.kv_cache_types[0],
            parallel=self.wishes.parallel,
            # The engine's wheel from PyPI computes on the CPU, but for macOS, where it has Metal.
            use_gpu=self.hardware.unified_memory or not self.only_driven,
        )

    def formats(self, site: Site) -> tuple[Format, ...]:
        """The formats that can be had of the site's model and that its platform can run."""
        wanted = (self.wishes.format,) if self.wishes.format is not None else formats_of(site.model)
        return tuple(
            f for f in wanted if origin(site.model, f) and replace(site, format=f).refusal is None
        )

    def sites(self, model: Model) -> list[Site]:
        """Every platform and format that comes into question for ``model``."""
        patterns = [self.site(model, p) for p in self.usable(model)]
        return [replace(s, format=f) for s in patterns for f in self.formats(s)]


def search(hardware: Hardware, wishes: Wishes, *, only_driven: bool) -> Search:
    """The search that ``wishes`` ask for.

    Raises:
        UsageError: there is no such platform, or it cannot be started though it must be.
    """
    among = tuple(p for p in PLATFORMS.values() if p.driven or not only_driven)
    if wishes.platform is not None:
        name = platform_name(wishes.platform)
        expected = " or ".join(p.name for p in among)
        if name is None:
            raise UsageError(
                wishes.platform,
                found="no platform of that name",
                expected=expected,
                hint="leave --platform out to get the best that fits",
            )
        if only_driven and not PLATFORMS[name].driven:
            raise UsageError(
                wishes.platform,
                found="a platform that qwharf can plan for, but not start yet",
                expected=expected,
                hint=f"leave --platform out, or see the sum: `qwharf fit MODEL --platform {name}`",
            )
        among = (PLATFORMS[name],)
    return Search(hardware, wishes, among, only_driven)
