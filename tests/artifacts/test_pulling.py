"""Pulling from hubs that answer, and from hubs that do everything wrong."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qwharf.artifacts import disk, network
from qwharf.artifacts.download import _range_start
from qwharf.artifacts.listing import pin_path, read_pin
from qwharf.artifacts.network import Policy
from qwharf.artifacts.pulling import pull
from qwharf.artifacts.store import Store
from qwharf.errors import (
    ChecksumMismatch,
    FormatUnavailable,
    InvalidFile,
    NetworkError,
    StorageError,
    UsageError,
)
from qwharf.types import Artifact, Format, RemoteFile, Repository
from qwharf.types import Hub as HubName

from .hub_server import Fault, Hub, sha256

BF16 = Format("safetensors", "bf16")
Q8 = Format("gguf", "q8_0")
FAST = Policy(attempts=4, first_wait_s=0.001, longest_wait_s=0.01)

WEIGHTS = random.Random(1).randbytes(1_500_000)
SECOND = random.Random(2).randbytes(700_000)
CHECKPOINT = {
    "config.json": b'{"model_type": "qwen3"}',
    "tokenizer.json": b"{}" * 500,
    "LICENSE": b"Apache",
    "README.md": b"# not needed",
    "model.safetensors.index.json": b"{}",
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model-00002-of-00002.safetensors": SECOND,
    "pytorch_model.bin": b"never" * 1000,
    "original/consolidated.safetensors": b"never" * 1000,
}
NEEDED = set(CHECKPOINT) - {
    "README.md", "pytorch_model.bin", "original/consolidated.safetensors"
}  # fmt: skip
GGUF = {
    "Qwen3-8B-Q8_0.gguf": WEIGHTS,
    "Qwen3-8B-Q4_K_M.gguf": SECOND,
    "LICENSE": b"Apache",
    "README.md": b"# not needed",
    "params": b"{}",
}
REPO = Repository(repo_id="Qwen/Qwen3-8B", format=BF16)
GGUF_REPO = Repository(repo_id="Qwen/Qwen3-8B-GGUF", format=Q8)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    made = Hub()
    made.add(REPO.repo_id, CHECKPOINT)
    made.add(GGUF_REPO.repo_id, GGUF)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", made.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    yield made
    made.close()
    from huggingface_hub.utils import close_session

    close_session()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as made:
        yield made


def get(
    store: Store,
    repository: Repository = REPO,
    *,
    hub: HubName = "hf",
    policy: Policy = FAST,
    **more: object,
) -> Artifact:
    return pull(repository, model="m", hub=hub, store=store, policy=policy, **more)  # type: ignore[arg-type]


def contents(artifact: Artifact) -> dict[str, bytes]:
    root = next(p for p in (artifact.path, *artifact.path.parents) if p.name == artifact.id)
    return {f.name: (root / f.name).read_bytes() for f in artifact.files}


def parts(store: Store) -> list[Path]:
    folder = store.root / "downloads"
    return sorted(folder.glob("*.part")) if folder.is_dir() else []


# -------------------------------------------------------------------------------------- the good


@pytest.mark.parametrize("name", ["hf", "modelscope"])
def test_a_checkpoint_comes_whole_and_nothing_else(hub: Hub, store: Store, name: HubName) -> None:
    told: list[tuple[str, int, int | None]] = []
    made = get(store, hub=name, progress=lambda *a: told.append(a))
    assert contents(made) == {n: CHECKPOINT[n] for n in NEEDED}
    assert made.path.is_dir() and made.format == BF16 and made.model == "m"
    assert made.provenance["repository"] == REPO.repo_id and made.provenance["hub"] == name
    size = sum(len(CHECKPOINT[n]) for n in NEEDED)
    assert told[-1] == (REPO.repo_id, size, size)
    assert all(b[1] >= a[1] for a, b in itertools.pairwise(told))
    assert hub.sent_bytes < size + 20_000
    assert parts(store) == [] and store.verify() == []
    assert not list((store.root / "downloads").iterdir())
    hub.forget()
    assert get(store, hub=name) == made
    assert hub.seen == []  # pinned and here: the hub is not even asked


@pytest.mark.parametrize("name", ["hf", "modelscope"])
def test_only_the_named_quantisation_is_fetched(hub: Hub, store: Store, name: HubName) -> None:
    made = get(store, GGUF_REPO, hub=name)
    assert set(contents(made)) == {"Qwen3-8B-Q8_0.gguf", "LICENSE"}
    assert made.path.name == "Qwen3-8B-Q8_0.gguf" and made.path.read_bytes() == WEIGHTS
    assert not hub.requests("Q4_K_M")


def test_split_gguf_in_a_folder(hub: Hub, store: Store) -> None:
    names = [f"Q8_0/M-Q8_0-{n:05d}-of-00002.gguf" for n in (1, 2)]
    hub.add("o/split", {names[1]: SECOND, names[0]: WEIGHTS, "Q4_0/M-Q4_0.gguf": b"x"})
    made = get(store, Repository(repo_id="o/split", format=Q8))
    assert set(contents(made)) == set(names)
    assert made.path.name == "M-Q8_0-00001-of-00002.gguf" and made.path.parent.name == "Q8_0"


def test_the_commit_is_pinned(hub: Hub, store: Store) -> None:
    first = hub.repositories[REPO.repo_id][0][0]
    made = get(store)
    assert made.provenance["revision"] == first
    pin = read_pin(store, "hf", REPO.repo_id)
    assert pin is not None and pin.revision == first and pin.requested == "main"
    changed = {**CHECKPOINT, "model-00002-of-00002.safetensors": b"new" * 1000}
    second = hub.add(REPO.repo_id, changed)
    told: list[str] = []
    assert get(store, notice=told.append) == made  # everything is here: not even a question
    store.remove(made.id)
    again = get(store, notice=told.append)
    assert again.id == made.id and contents(again)["model-00002-of-00002.safetensors"] == SECOND
    assert len(told) == 1 and second[:24] in told[0] and "--upgrade" in told[0]
    newer = get(store, upgrade=True)
    assert newer.provenance["revision"] == second
    assert contents(newer)["model-00002-of-00002.safetensors"] == b"new" * 1000
    assert get(store) == newer
    back = get(store, revision=first)
    assert back.id == made.id
    pin = read_pin(store, "hf", REPO.repo_id)
    assert pin is not None and pin.revision == first


def test_modelscope_cannot_serve_what_it_replaced(hub: Hub, store: Store) -> None:
    made = get(store, hub="modelscope")
    assert made.provenance["revision"].startswith("master@")
    hub.add(REPO.repo_id, {**CHECKPOINT, "config.json": b'{"new": 1}'})
    store.remove(made.id)
    store.close()
    store.gc()
    with pytest.raises(ChecksumMismatch) as caught:
        get(store, hub="modelscope")
    assert "--upgrade" in caught.value.hint and "config.json" in caught.value.subject
    assert contents(get(store, hub="modelscope", upgrade=True))["config.json"] == b'{"new": 1}'


def test_what_is_in_the_store_is_not_fetched(hub: Hub, store: Store) -> None:
    get(store)
    other = {**CHECKPOINT, "config.json": b"{}"}
    hub.add("me/fine-tune", other)
    hub.forget()
    made = get(store, Repository(repo_id="me/fine-tune", format=BF16))
    assert contents(made) == {n: other[n] for n in NEEDED}
    assert not hub.requests(server="cdn")


def test_the_cache_of_huggingface_hub_is_used(hub: Hub, store: Store, tmp_path: Path) -> None:
    blobs = tmp_path / "hf-home/hub/models--Qwen--Qwen3-8B/blobs"
    blobs.mkdir(parents=True)
    (blobs / sha256(WEIGHTS)).write_bytes(WEIGHTS)
    (blobs / sha256(SECOND)).write_bytes(b"damaged")
    made = get(store)
    assert contents(made)["model-00002-of-00002.safetensors"] == SECOND
    assert [s.path.split("|")[-1].split("?")[0] for s in hub.requests(server="cdn")] == [
        "model-00002-of-00002.safetensors"
    ]
    assert store.blobs.path(sha256(WEIGHTS)).samefile(blobs / sha256(WEIGHTS))
    assert (blobs / sha256(SECOND)).read_bytes() == b"damaged"


def test_the_catalogue_names_the_files(hub: Hub, store: Store) -> None:
    name = "Qwen3-8B-Q8_0.gguf"
    right = replace(GGUF_REPO, files=(RemoteFile(path=name, sha256=sha256(WEIGHTS)),))
    wrong = replace(GGUF_REPO, files=(RemoteFile(path=name, sha256="0" * 64),))
    gone = replace(GGUF_REPO, files=(RemoteFile(path="Other.gguf", sha256="0" * 64),))
    with pytest.raises(ChecksumMismatch, match="Q8_0"):
        get(store, wrong)
    with pytest.raises(ChecksumMismatch, match=r"Other\.gguf"):
        get(store, gone)
    assert not hub.requests(server="cdn")
    assert set(contents(get(store, right))) == {name, "LICENSE"}
    assert get(store, wrong, upgrade=True).path.read_bytes() == WEIGHTS


def test_a_file_called_otherwise_is_found(hub: Hub, store: Store) -> None:
    for sha in (None, sha256(WEIGHTS)):
        renamed = replace(GGUF_REPO, files=(RemoteFile(path="Other.gguf", sha256=sha),))
        assert get(store, renamed, upgrade=True).path.name == "Qwen3-8B-Q8_0.gguf"


# --------------------------------------------------------------------------------- cut and resumed


@pytest.mark.parametrize("name", ["hf", "modelscope"])
def test_a_cut_connection_is_resumed(hub: Hub, store: Store, name: HubName) -> None:
    hub.faults += [Fault("Q8_0", cut_after=n, server="cdn") for n in (500_000, 300_000, 0)]
    made = get(store, GGUF_REPO, hub=name)
    assert made.path.read_bytes() == WEIGHTS
    asked = [s.headers.get("range") for s in hub.requests("Q8_0", server="cdn")]
    assert asked == [None, "bytes=500000-", "bytes=800000-", "bytes=800000-"]
    tags = [s.headers.get("if-range") for s in hub.requests("Q8_0", server="cdn")]
    assert tags[0] is None and len(set(tags[1:])) == 1 and tags[1]
    assert hub.sent_bytes < len(WEIGHTS) + 20_000


def test_progress_renews_patience_but_not_for_ever(hub: Hub, store: Store) -> None:
    hub.faults += [Fault("Q8_0", times=12, cut_after=100_000, server="cdn")]
    assert get(store, GGUF_REPO).path.read_bytes() == WEIGHTS
    hub.faults += [Fault("Q4_K_M", times=99, cut_after=0, server="cdn")]
    with pytest.raises(NetworkError) as caught:
        get(store, replace(GGUF_REPO, format=Format("gguf", "q4_k_m")))
    assert caught.value.facts["status"] is None and "signature" not in str(caught.value)
    assert len(hub.requests("Q4_K_M", server="cdn")) == FAST.attempts


def test_giving_up_keeps_the_part(hub: Hub, store: Store) -> None:
    hub.faults += [
        Fault("Q8_0", cut_after=900_000, server="cdn"),
        Fault("Q8_0", times=4, status=503, server="cdn"),
    ]
    with pytest.raises(NetworkError) as caught:
        get(store, GGUF_REPO)
    assert caught.value.facts["status"] == 503
    assert [p.stat().st_size for p in parts(store)] == [900_000]
    assert store.artifacts() == () and store.gc().files == 0
    hub.forget()
    assert get(store, GGUF_REPO).path.read_bytes() == WEIGHTS
    assert hub.sent_bytes < 620_000 and parts(store) == []


def test_another_hub_goes_on_with_the_part(hub: Hub, store: Store) -> None:
    hub.faults += [
        Fault("Q8_0", cut_after=900_000, server="cdn"),
        Fault("Q8_0", status=403, server="cdn"),
    ]
    with pytest.raises(NetworkError):
        get(store, GGUF_REPO)
    hub.forget()
    get(store, GGUF_REPO, hub="modelscope")
    assert hub.sent_bytes < 620_000


@pytest.mark.parametrize(
    "fault",
    [
        Fault("Q8_0", ignore_range=True, server="cdn"),
        Fault("Q8_0", shift_range=True, server="cdn"),
        Fault("Q8_0", status=416, server="cdn"),
    ],
)
def test_servers_bad_at_ranges(hub: Hub, store: Store, fault: Fault) -> None:
    told: list[int] = []
    hub.faults += [Fault("Q8_0", cut_after=400_000, server="cdn"), replace(fault)]
    made = get(store, GGUF_REPO, progress=lambda _, done, __: told.append(done))
    assert made.path.read_bytes() == WEIGHTS and store.verify() == []
    assert told[-1] == made.size_bytes


def test_content_that_changed_under_way(hub: Hub, store: Store) -> None:
    key = store.folder("downloads") / sha256(WEIGHTS)
    key.with_suffix(".part").write_bytes(b"z" * 1000)
    host = hub.url.removeprefix("http://")
    key.with_suffix(".json").write_text(json.dumps({"etag": '"old"', "host": host}))
    assert get(store, GGUF_REPO).path.read_bytes() == WEIGHTS
    first = hub.requests("Q8_0", server="cdn")[0]
    assert (first.headers["if-range"], first.status) == ('"old"', 200)


@pytest.mark.parametrize("junk", [b"z" * 1000, b"z" * 1_500_000, b"z" * 1_600_000, b""])
def test_a_part_of_junk_is_replaced(hub: Hub, store: Store, junk: bytes) -> None:
    part = store.folder("downloads") / f"{sha256(WEIGHTS)}.part"
    part.write_bytes(junk)
    part.with_suffix(".json").write_bytes(b"\xff junk")
    told: list[int] = []
    made = get(store, GGUF_REPO, progress=lambda _, done, __: told.append(done))
    assert made.path.read_bytes() == WEIGHTS and told[-1] == made.size_bytes


PULL = """
import sys
from pathlib import Path
from qwharf.artifacts.pulling import pull
from qwharf.artifacts.store import Store
from qwharf.types import Format, Repository

repository = Repository(repo_id=sys.argv[2], format=Format("gguf", "q8_0"))
print("go", flush=True)
made = pull(repository, model="m", store=Store(Path(sys.argv[1])))
print(made.id, flush=True)
"""


def start(store: Store) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", PULL, str(store.root), GGUF_REPO.repo_id]
    return subprocess.Popen(argv, stdout=subprocess.PIPE)


def test_kill_9_and_again(hub: Hub, store: Store) -> None:
    part = store.root / "downloads" / f"{sha256(WEIGHTS)}.part"
    hub.faults += [Fault("Q8_0", times=99, pause_s=0.03, server="cdn")]
    reached = 0
    for _ in range(3):
        child = start(store)
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > reached + 100_000):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
        reached = part.stat().st_size
        assert store.artifacts() == () and store.verify() == []
    hub.faults.clear()
    hub.forget()
    made = get(store, GGUF_REPO)
    assert made.path.read_bytes() == WEIGHTS
    assert hub.sent_bytes <= len(WEIGHTS) - reached + 20_000
    store.close()
    assert store.gc(unfinished_after_s=-1).freed_bytes == 0 and store.verify() == []
    assert list((store.root / "tmp").iterdir()) == []
    assert list((store.root / "downloads").iterdir()) == []


def test_processes_pull_the_same_once(hub: Hub, store: Store) -> None:
    hub.faults += [Fault("Q8_0", times=99, pause_s=0.004, server="cdn")]
    children = [start(store) for _ in range(3)]
    outs = [child.communicate(timeout=120)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len({out[1] for out in outs}) == 1
    assert len(hub.requests("Q8_0", server="cdn")) == 1
    assert len(store.artifacts()) == 1 and store.verify() == []


def test_two_formats_at_once_share_what_is_the_same(hub: Hub, store: Store) -> None:
    hub.add("o/both", {"a-Q8_0.gguf": WEIGHTS, "a-Q4_0.gguf": WEIGHTS})
    made: list[Artifact] = []

    def one(quantization: str) -> None:
        repository = Repository(repo_id="o/both", format=Format("gguf", quantization))
        made.append(get(Store(store.root), repository))

    threads = [threading.Thread(target=one, args=(q,)) for q in ("q8_0", "q4_0")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2 and len(list(store.blobs.all())) == 1
    assert len(hub.requests(server="cdn")) == 1


# ----------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("name", ["hf", "modelscope"])
def test_a_wrong_checksum_keeps_nothing(hub: Hub, store: Store, name: HubName) -> None:
    hub.faults += [Fault("Q8_0", times=9, damage=True, server="cdn")]
    with pytest.raises(ChecksumMismatch) as caught:
        get(store, GGUF_REPO, hub=name)
    assert caught.value.expected == sha256(WEIGHTS)
    assert store.artifacts() == () and sha256(WEIGHTS) not in store.blobs.all()
    assert not [p for p in parts(store) if sha256(WEIGHTS) in p.name]


def test_a_wrong_small_file_is_noticed_too(hub: Hub, store: Store) -> None:
    hub.faults += [Fault("resolve/", times=99, damage=True, server="hub")]
    with pytest.raises(ChecksumMismatch, match="git id"):
        get(store)


def test_one_damaged_answer_is_repaired(hub: Hub, store: Store) -> None:
    hub.faults += [Fault("Q8_0", damage=True, server="cdn")]
    assert get(store, GGUF_REPO).path.read_bytes() == WEIGHTS


def test_more_bytes_than_announced(hub: Hub, store: Store) -> None:
    hub.faults += [Fault("Q8_0", longer=True, times=9, server="cdn")]
    with pytest.raises(NetworkError, match="more bytes"):
        get(store, GGUF_REPO)


@pytest.mark.parametrize("name", ["hf", "modelscope"])
def test_gated_repositories(
    hub: Hub, store: Store, name: HubName, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated[GGUF_REPO.repo_id] = "hf_right"
    variable = "HF_TOKEN" if name == "hf" else "MODELSCOPE_API_TOKEN"
    with pytest.raises(NetworkError) as caught:
        get(store, GGUF_REPO, hub=name)
    assert caught.value.facts["status"] == 401 and variable in caught.value.hint
    monkeypatch.setenv(variable, "hf_wrong")
    with pytest.raises(NetworkError) as caught:
        get(store, GGUF_REPO, hub=name)
    assert caught.value.facts["status"] == 403
    monkeypatch.setenv(variable, "hf_right")
    assert get(store, GGUF_REPO, hub=name).path.read_bytes() == WEIGHTS
    assert "hf_right" not in pin_path(store, name, GGUF_REPO.repo_id).read_text()


def test_the_token_stays_with_the_hub(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms_secret")
    get(store, GGUF_REPO)
    get(Store(store.root.with_name("other")), GGUF_REPO, hub="modelscope")
    asked, cdn = hub.requests(server="hub"), hub.requests(server="cdn")
    assert all("secret" in s.headers.get("authorization", "") for s in asked)
    assert len(cdn) == 2
    for seen in cdn:
        assert "authorization" not in seen.headers and "cookie" not in seen.headers
    agents = {s.headers["user-agent"] for s in hub.seen}
    assert all(("torch" not in a and "python/" not in a.lower()) or "hf_hub" in a for a in agents)


@pytest.mark.parametrize("name", ["hf", "modelscope"])
def test_what_is_not_there(hub: Hub, store: Store, name: HubName) -> None:
    with pytest.raises(NetworkError) as caught:
        get(store, Repository(repo_id="Qwen/Nothing", format=BF16), hub=name)
    assert "HTTP 40" in caught.value.found and "Qwen/Nothing" in caught.value.hint
    with pytest.raises(NetworkError) as caught:
        get(store, revision="v9", hub=name)
    assert caught.value.facts["status"] == 404
    if name == "modelscope":
        assert caught.value.expected == "one of master, v1.0"
    with pytest.raises(FormatUnavailable) as missing:
        get(store, replace(GGUF_REPO, format=Format("gguf", "iq1_s")), hub=name)
    assert missing.value.found == "gguf:q4_k_m, gguf:q8_0"
    assert not pin_path(store, name, "Qwen/Nothing").exists()


def test_not_on_this_hub(hub: Hub, store: Store) -> None:
    with pytest.raises(FormatUnavailable, match="modelscope"):
        get(store, replace(REPO, hubs=("hf",)), hub="modelscope")
    assert hub.seen == []


@pytest.mark.parametrize("name", ["hf", "modelscope"])
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_trouble_that_passes(hub: Hub, store: Store, name: HubName, status: int) -> None:
    hub.faults += [
        Fault("/api/", times=2, status=status, server="hub"),
        Fault("Q8_0", times=2, status=status, server="cdn"),
    ]
    assert get(store, GGUF_REPO, hub=name).path.read_bytes() == WEIGHTS


class Patient(Policy):
    waits: list[float] = []  # noqa: RUF012 - shared on purpose, emptied by its test

    def pause(self, stop: threading.Event, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.mark.parametrize("name", ["hf", "modelscope"])
def test_retry_after_is_honoured(hub: Hub, store: Store, name: HubName) -> None:
    Patient.waits.clear()
    hub.faults += [
        Fault("/api/", status=429, headers={"retry-after": "7"}, server="hub"),
        Fault("Q8_0", status=429, headers={"retry-after": "11"}, server="cdn"),
    ]
    get(store, GGUF_REPO, hub=name, policy=Patient())
    assert Patient.waits == [7.0, 11.0]


def test_too_much_patience_is_asked(hub: Hub, store: Store) -> None:
    hub.faults += [Fault("Q8_0", status=429, headers={"retry-after": "7200"}, server="cdn")]
    with pytest.raises(NetworkError, match="429") as caught:
        get(store, GGUF_REPO)
    assert "7200 seconds" in caught.value.hint


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "9" * 50}, 1e9),
        ({}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert network.retry_after_s(headers, now=60.0) == seconds


@pytest.mark.parametrize(
    ("text", "first"),
    [("bytes 5-9/10", 5), ("bytes */10", None), ("", None), ("items 1-2/3", None), ("bytes", None)],
)
def test_content_range(text: str, first: int | None) -> None:
    assert _range_start(text) == first


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:1/Qwen/loop", "file:///etc/passwd", "http://[bad", "self"]
)
def test_bad_redirects(hub: Hub, store: Store, target: str) -> None:
    place = f"{hub.url}/loop" if target == "self" else target
    hub.faults += [Fault("Q8_0", times=99, redirect=place), Fault("loop", 99, redirect=place)]
    with pytest.raises(NetworkError):
        get(store, GGUF_REPO)
    assert store.artifacts() == ()


@pytest.mark.parametrize("name", ["hf", "modelscope"])
@pytest.mark.parametrize(
    "body",
    [
        b"<html>a captive portal</html>",
        b"[]",
        b'{"sha": "../..", "siblings": [], "id": "x"}',
        b'{"sha": "abc", "id": "x"}',
        b'{"id":"x","sha": "abc", "siblings": [{"rfilename": "a.gguf", "size": -1}]}',
        b'{"id":"x","sha": "abc", "siblings": [{"rfilename": "a.gguf"}]}',
        b'{"Code": 200, "Data": {"Files": "none"}}',
        b'{"Code": 200, "Data": {"Files": [{"Path": "a-Q8_0.gguf", "Size": "big"}]}}',
        b'{"Code": 200, "Data": null}',
        b'{"Code": 500, "Message": "trouble"}',
        b"[" * 100_000,
    ],
)
def test_lists_that_are_none(hub: Hub, store: Store, name: HubName, body: bytes) -> None:
    hub.faults += [Fault("/api/", times=99, status=200, body=body, server="hub")]
    with pytest.raises(NetworkError):
        get(store, GGUF_REPO, hub=name)
    assert read_pin(store, name, GGUF_REPO.repo_id) is None


def test_file_names_from_outside_are_not_trusted(hub: Hub, store: Store) -> None:
    evil = "../../evil-Q8_0.gguf"
    hub.add("o/evil", {evil: WEIGHTS})
    with pytest.raises(InvalidFile):
        get(store, Repository(repo_id="o/evil", format=Q8))
    assert not hub.requests(server="cdn")


@pytest.mark.parametrize("repo_id", ["../x", "a/b/c", "a", "a/..", "a--b/c", "a/b?x=1", ""])
def test_repository_ids_are_checked(hub: Hub, store: Store, repo_id: str) -> None:
    with pytest.raises(UsageError):
        get(store, Repository(repo_id=repo_id, format=Q8))
    assert hub.seen == []


@pytest.mark.parametrize("revision", ["../x", "a b", "-x", "a?b", "x" * 300])
def test_revisions_are_checked(hub: Hub, store: Store, revision: str) -> None:
    with pytest.raises(UsageError):
        get(store, revision=revision)
    assert hub.seen == []


def test_a_list_without_checksums_is_refused(hub: Hub, store: Store) -> None:
    rows = b'{"rfilename": "a-Q8_0.gguf", "size": 5}'
    body = b'{"id": "x", "sha": "abc", "siblings": [%s]}' % rows
    hub.faults += [Fault("/api/", status=200, body=body, server="hub")]
    with pytest.raises(NetworkError, match="no checksum"):
        get(store, GGUF_REPO)


# ----------------------------------------------------------------------------- no network, no room


@pytest.mark.parametrize("name", ["hf", "modelscope"])
def test_no_network(hub: Hub, store: Store, name: HubName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkError) as caught:
        get(store, hub=name)
    assert caught.value.facts["status"] is None and "--from" in caught.value.hint
    assert "127.0.0.1:9" in caught.value.facts["url"]


@pytest.mark.parametrize("value", ["hub.example.org", "ftp://x", "http://a b", "http://u:p@x/y"])
def test_endpoints_are_urls(
    hub: Hub, store: Store, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    with pytest.raises(UsageError, match="HF_ENDPOINT"):
        get(store)


def test_offline_is_respected(hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = get(store, GGUF_REPO)
    hub.forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert get(store, GGUF_REPO) == made
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE"):
        get(store)
    assert hub.seen == []


def test_room_is_looked_for_first(hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda _: 1_400_000)
    with pytest.raises(StorageError) as caught:
        get(store, GGUF_REPO)
    assert caught.value.facts["needed_bytes"] > len(WEIGHTS)
    assert not hub.requests(server="cdn") and parts(store) == []


def test_the_disk_fills_up_all_the_same(
    hub: Hub, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = random.Random(3).randbytes(4_000_000)
    hub.add("o/big", {"a-Q8_0.gguf": big})
    store = Store(small_disk / "store")
    real = disk.require_space
    monkeypatch.setattr(disk, "require_space", lambda *a, **k: None)
    with pytest.raises(StorageError) as caught:
        get(store, Repository(repo_id="o/big", format=Q8))
    assert "store gc" in caught.value.hint and store.artifacts() == ()
    monkeypatch.setattr(disk, "require_space", real)
    with pytest.raises(StorageError, match="MB"):
        get(store, Repository(repo_id="o/big", format=Q8))


def test_a_damaged_pin_is_told(hub: Hub, store: Store) -> None:
    get(store)
    path = pin_path(store, "hf", REPO.repo_id)
    path.write_text("{}")
    with pytest.raises(InvalidFile) as caught:
        get(store)
    assert caught.value.subject == str(path)


def test_an_interrupt_keeps_the_parts(hub: Hub, store: Store) -> None:
    hub.faults += [Fault("Q8_0", times=99, pause_s=0.004, server="cdn")]

    def interrupt(_: str, done: int, __: int | None) -> None:
        if done > 200_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(store, GGUF_REPO, progress=interrupt)
    assert [p.stat().st_size > 150_000 for p in parts(store)] == [True]
    hub.faults.clear()
    assert hashlib.sha256(get(store, GGUF_REPO).path.read_bytes()).hexdigest() == sha256(WEIGHTS)
