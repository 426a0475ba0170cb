"""From a hub into the store: pinned, resumed, verified, nothing more than was asked for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from qwharf.artifacts import disk, hf_cache, locks, network
from qwharf.artifacts.blobs import BlobRef
from qwharf.artifacts.disk import Progress
from qwharf.artifacts.download import Download, Fetch
from qwharf.artifacts.listing import Listing, RemoteEntry, read_pin, write_pin
from qwharf.artifacts.network import Policy, Site, Stopped
from qwharf.artifacts.records import check_name
from qwharf.artifacts.selection import LEGAL, Selection, is_companion, select
from qwharf.artifacts.store import Store
from qwharf.errors import ChecksumMismatch, FormatUnavailable, NetworkError
from qwharf.types import Artifact, Hub, Repository

if TYPE_CHECKING:
    import httpx2

FILES_AT_ONCE = 4

Notice = Callable[[str], None]


class HubSite(Site, Protocol):
    """A hub that can be pulled from."""

    name: Hub
    forgets: bool
    """Whether what a branch held before cannot be fetched any more."""

    def headers(self) -> dict[str, str]:
        """Who asks."""

    def url(self, listing: Listing, path: str) -> str:
        """Where a file is fetched from."""

    def listing(self, repo_id: str, revision: str | None, *, policy: Policy) -> Listing:
        """What a repository holds."""


def site(hub: Hub) -> HubSite:
    """The hub of that name, as the environment describes it.

    Raises:
        UsageError: an endpoint is not a URL.
    """
    if hub == "hf":
        from qwharf.artifacts.hub import HuggingFace

        return HuggingFace()
    from qwharf.artifacts.modelscope import ModelScope

    return ModelScope()


def pull(
    repository: Repository,
    *,
    model: str,
    hub: Hub = "hf",
    store: Store,
    progress: Progress | None = None,
    revision: str | None = None,
    upgrade: bool = False,
    notice: Notice | None = None,
    policy: Policy | None = None,
) -> Artifact:
    """Fetch one format of ``repository`` into ``store``.

    The first pull pins the repository: its commit and all hashes go into a record of the store,
    and later pulls keep to it whatever happens upstream. Only weights of the format, and the
    configuration, tokenizer, template and licence with them, are fetched; contents that are in
    the store, or in the cache of ``huggingface_hub``, are not fetched at all.

    Args:
        repository: from the catalogue.
        model: the name to keep it under.
        hub: where from.
        store: where to.
        progress: told the bytes, of all files together.
        revision: another commit, branch or tag than the pinned one; pins it.
        upgrade: pin what the hub has now.
        notice: told in words what the user should know, e.g. of a change upstream.
        policy: patience with the network.

    Raises:
        NetworkError: unreachable, refused or not found; what was fetched is kept for next time.
        ChecksumMismatch: bytes, or the hub's own list, are not what they should be.
        FormatUnavailable: the repository does not hold the format, or is not on that hub.
        StorageError: not enough room (known before the first byte), or the disk refuses.
    """
    if hub not in repository.hubs:
        raise FormatUnavailable(
            repository.repo_id,
            found=f"not on {hub}",
            expected=" or ".join(repository.hubs),
            hint=f"`qwharf pull {model} --from {repository.hubs[0]}`" if repository.hubs else "",
        )
    work = _Pull(
        store, repository, site(hub), model, progress, notice, policy or Policy(), upgrade, revision
    )
    name = f"pull-{hub}-{repository.repo_id.replace('/', '--')}-{repository.format.quantization}"
    with store.working_on(name, lambda: work.tell_waiting()):
        return work.run()


@dataclass
class _Pull:
    store: Store
    repository: Repository
    hub: HubSite
    model: str
    progress: Progress | None
    notice: Notice | None
    policy: Policy
    upgrade: bool
    revision: str | None
    now: Listing | None = None
    """What the hub has now, where that is not what is pinned."""

    def tell_waiting(self) -> None:
        if self.progress is not None:
            self.progress("another command pulls the same: waiting", 0, None)

    def run(self) -> Artifact:
        pin = read_pin(self.store, self.hub.name, self.repository.repo_id)
        keep = (
            pin is not None
            and not self.upgrade
            and self.revision in (None, pin.requested, pin.revision)
        )
        if pin is not None and keep:
            found = self._stored(pin)
            if found is not None:
                return found
        if network.offline():
            return self._offline(pin)
        listing = self._listing(pin if keep else None)
        selection = self._select(listing)
        entries = [listing.entry(name) for name in selection.names]
        for entry in entries:
            check_name(entry.path, subject=self.repository.repo_id)
        self._check_catalogue(entries)
        self._check_still_there(entries)
        if listing is not pin:
            write_pin(self.store, replace(listing, pinned_at=time.time()))
        found = self._stored(listing)
        if found is not None:
            return found
        refs = _Transfer(self, listing, entries).run()
        return self.store.add(
            self.model, self.repository.format, refs, self._provenance(listing), selection.entry
        )

    def _provenance(self, listing: Listing) -> dict[str, str]:
        return {
            "source": f"{listing.repository} on {self.hub.name}",
            "hub": self.hub.name,
            "repository": listing.repository,
            "revision": listing.revision,
            "endpoint": listing.endpoint,
        }

    def _stored(self, listing: Listing) -> Artifact | None:
        """The artifact of an earlier pull of the same revision."""
        for artifact in self.store.artifacts():
            if (
                artifact.model == self.model
                and artifact.format == self.repository.format
                and artifact.provenance.get("repository") == listing.repository
                and artifact.provenance.get("revision") == listing.revision
            ):
                with contextlib.suppress(ChecksumMismatch):
                    self.store.check(artifact)
                    return artifact
        return None

    def _offline(self, pin: Listing | None) -> Artifact:
        """Without a network: what ``huggingface_hub`` has cached, if it has all of it."""
        from qwharf.artifacts.importing import import_path

        repo_id = self.repository.repo_id
        wanted = self.revision or (pin.revision if pin and not self.upgrade else None)
        snapshot = hf_cache.find_snapshot(repo_id, wanted) if self.hub.name == "hf" else None
        if snapshot is not None and self.repository.format.container != "gguf":
            return import_path(
                self.store, snapshot, model=self.model, progress=self.progress
            ).artifact
        raise NetworkError(
            repo_id,
            found="HF_HUB_OFFLINE is set, and the weights are neither in the store nor in the "
            "cache of huggingface_hub",
            hint="unset HF_HUB_OFFLINE, or give a folder or .gguf file instead of a name",
            url=self.hub.endpoint,
            status=None,
        )

    def _listing(self, pin: Listing | None) -> Listing:
        """The pinned listing, after a look whether the hub has moved on; or the hub's own."""
        repo_id = self.repository.repo_id
        if pin is None:
            return self.hub.listing(repo_id, self.revision, policy=self.policy)
        with contextlib.suppress(NetworkError):  # not needed: the download will tell
            now = self.hub.listing(repo_id, pin.requested, policy=replace(self.policy, attempts=1))
            if now.revision == pin.revision:
                return pin
            self.now = now
            if self.notice is not None:
                self.notice(
                    f"{repo_id} has changed on {self.hub.title} since it was pinned "
                    f"({pin.revision[:24]} -> {now.revision[:24]}); "
                    "`qwharf pull … --upgrade` takes the change"
                )
        return pin

    def _check_still_there(self, entries: list[RemoteEntry]) -> None:
        """A hub without commits cannot serve a pinned content that it has replaced."""
        if self.now is None or not self.hub.forgets:
            return
        there = {f.path: f for f in self.now.files}
        for entry in entries:
            if there.get(entry.path) == entry:
                continue
            if entry.sha256 is None or self.store.take(entry.sha256) is None:
                raise ChecksumMismatch(
                    f"{self.repository.repo_id}: {entry.path}",
                    found=f"another file on {self.hub.title} than the pinned one",
                    expected=f"sha256 {entry.sha256}",
                    hint="it was replaced upstream; `qwharf pull … --upgrade` takes what is there "
                    "now",
                )

    def _select(self, listing: Listing) -> Selection:
        names = [f.path for f in listing.files]
        wanted = [f.path for f in self.repository.files]
        if not wanted or set(wanted) - set(names):
            # Not listed in the catalogue, or called otherwise by now: the names tell.
            return select(names, self.repository.format, subject=listing.repository)
        gguf = self.repository.format.container == "gguf"
        extra = [n for n in names if (LEGAL.fullmatch(n) if gguf else is_companion(n))]
        return Selection(
            names=tuple(sorted({*wanted, *extra})), entry=min(wanted) if gguf else None
        )

    def _check_catalogue(self, entries: list[RemoteEntry]) -> None:
        """Where the catalogue knows a hash, the hub's list must agree, unless told otherwise."""
        if self.upgrade or self.revision is not None:
            return
        here = {e.path: e.sha256 for e in entries if e.sha256}
        for file in self.repository.files:
            found = here.get(file.path)
            # A file that was only renamed is found by its hash.
            if file.sha256 and file.sha256 != found and file.sha256 not in here.values():
                raise ChecksumMismatch(
                    f"{self.repository.repo_id}: {file.path}",
                    found=f"sha256 {found} in the list of {self.hub.title}"
                    if found
                    else f"no such file in the list of {self.hub.title}",
                    expected=f"sha256 {file.sha256}, which the catalogue knows",
                    hint="the file was replaced upstream; `qwharf pull … --upgrade` takes what is "
                    "there now",
                )


class _Transfer:
    """Brings the entries of a listing in, several at once."""

    def __init__(self, pull: _Pull, listing: Listing, entries: list[RemoteEntry]) -> None:
        self.pull = pull
        self.store = pull.store
        self.listing = listing
        self.entries = entries
        self.stop = threading.Event()
        self.total = sum(e.size_bytes for e in entries)
        self.done = 0
        self.counting = threading.Lock()
        self.headers = pull.hub.headers()

    def step(self, count: int) -> None:
        """Count bytes of all files together."""
        with self.counting:
            self.done += count
            if self.pull.progress is not None:
                self.pull.progress(self.listing.repository, self.done, self.total)

    def run(self) -> dict[str, BlobRef]:
        refs: dict[str, BlobRef] = {}
        missing = []
        for entry in self.entries:
            ref = self._at_hand(entry)
            if ref is None:
                missing.append(entry)
            else:
                refs[entry.path] = ref
                self.step(entry.size_bytes)
        if missing:
            self._require_space(missing)
            with self._client() as client, disk.storage_errors(self.store.root):
                refs |= self._fetch_all(client, missing)
        return refs

    def _at_hand(self, entry: RemoteEntry) -> BlobRef | None:
        """The content from the store, or from the cache of ``huggingface_hub``."""
        if entry.sha256 is None:
            return None
        ref = self.store.take(entry.sha256)
        if ref is None and (path := hf_cache.find_blob(self.listing.repository, entry.sha256)):
            with contextlib.suppress(ChecksumMismatch):  # a damaged cache is passed over
                ref = self.store.put_file(path, "link", expected_sha256=entry.sha256)
        return ref

    def _require_space(self, missing: list[RemoteEntry]) -> None:
        downloads = self.store.root / "downloads"
        needed = 0
        for entry in missing:
            part = downloads / f"{self._download(entry).key}.part"
            here = part.stat().st_size if part.exists() else 0
            needed += max(0, entry.size_bytes - here)
        with disk.storage_errors(self.store.root):
            disk.require_space(self.store.root, needed, subject=self.listing.repository)

    def _fetch_all(self, client: httpx2.Client, missing: list[RemoteEntry]) -> dict[str, BlobRef]:
        # The largest first: the small ones fill the gaps.
        order = sorted(missing, key=lambda e: -e.size_bytes)
        refs: dict[str, BlobRef] = {}
        with ThreadPoolExecutor(max_workers=FILES_AT_ONCE, thread_name_prefix="pull") as pool:
            futures = {pool.submit(self._fetch, client, e): e for e in order}
            try:
                for future in as_completed(futures):
                    refs[futures[future].path] = future.result()
            except BaseException:
                # Whatever happened, an interrupt included: end the others, keep their parts.
                self.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                client.close()
                raise
        return refs

    def _fetch(self, client: httpx2.Client, entry: RemoteEntry) -> BlobRef:
        download = self._download(entry)
        folder = self.store.folder("downloads")
        part = folder / f"{download.key}.part"
        with locks.locked(part.with_suffix(".lock"), give_up=self._check_stop, delete=True):
            ref = self.store.take(entry.sha256) if entry.sha256 else None
            if ref is not None:  # another pull has brought it meanwhile
                self.step(entry.size_bytes)
                return ref
            sha256 = Fetch(
                self.pull.hub,
                client,
                download,
                part,
                policy=self.pull.policy,
                stop=self.stop,
                step=self.step,
            ).run()
            return self.store.put_file(part, "move", known_sha256=sha256)

    def _download(self, entry: RemoteEntry) -> Download:
        return Download(
            repo_id=self.listing.repository,
            path=entry.path,
            url=self.pull.hub.url(self.listing, entry.path),
            size_bytes=entry.size_bytes,
            sha256=entry.sha256,
            git_sha1=entry.git_sha1,
            headers=self.headers,
        )

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise Stopped

    @contextlib.contextmanager
    def _client(self) -> Iterator[httpx2.Client]:
        with network.new_client() as client:
            yield client
