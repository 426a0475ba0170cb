"""The nouns of qwharf: plain frozen data that flows one way.

catalog -> Model, hardware -> Hardware, fit(Model, Hardware) -> Plan, artifacts(Plan) -> Artifact,
platform(Plan, Artifact) -> Launch -> Deployment, verify(Deployment) -> Report.

Nothing here imports anything of ours; units are in the field names; ``None`` means "not known",
never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Thinking = Literal["hybrid", "instruct", "thinking"]
"""hybrid: can switch; instruct: never thinks (Instruct-2507); thinking: always thinks."""

Mode = Literal["thinking", "non-thinking"]
Hub = Literal["hf", "modelscope"]
KvCacheType = Literal["f16", "bf16", "q8_0", "q4_0", "fp8"]
DeploymentState = Literal["starting", "ready", "restarting", "stopping", "stopped", "failed"]
CheckStatus = Literal["pass", "fail", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The numbers of a Qwen3 checkpoint, under the names of its ``config.json``."""

    model_type: Literal["qwen3", "qwen3_moe"]
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool
    max_position_embeddings: int
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    yarn_factor: float | None = None
    yarn_original_context_tokens: int | None = None

    @property
    def is_moe(self) -> bool:
        """Whether the feed-forward layers are mixtures of experts."""
        return self.model_type == "qwen3_moe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Recommended sampling of one mode."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float = 0.0
    presence_penalty: float = 0.0
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True, order=True)
class Format:
    """How weights are stored: a container and a quantisation, written ``container:quantization``.

    ``gguf:q4_k_m``, ``gguf:bf16``, ``safetensors:bf16``, ``safetensors:fp8``,
    ``safetensors:awq``, ``safetensors:gptq-int4``, ``mlx:4bit``.
    """

    container: Literal["gguf", "safetensors", "mlx"]
    quantization: str

    def __str__(self) -> str:
        return f"{self.container}:{self.quantization}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file of a repository, with what is known of it beforehand."""

    path: str
    size_bytes: int | None = None
    """As published; ``None`` when it was not seen."""
    sha256: str | None = None
    sha256_prefix: str | None = None
    """The first digits of the hash, where no more is known."""
    predicted_size_bytes: int | None = None
    """Computed, where the published size was not seen; right to about 64 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository as far as one format is concerned (a GGUF one holds several)."""

    repo_id: str
    format: Format
    hubs: tuple[Hub, ...] = ("hf", "modelscope")
    files: tuple[RemoteFile, ...] = ()
    """The files to fetch, when the list is known; empty: ask the hub (all weight files)."""
    official: bool = True
    """Published by Qwen; otherwise by the owner that ``repo_id`` names."""
    confirmed: bool = True
    """Whether the list of files was seen; otherwise it follows from Qwen's naming."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A catalogue entry, or a checkpoint found on disk (then ``path`` is set)."""

    name: str
    title: str
    architecture: Architecture
    thinking: Thinking
    sampling: Mapping[Mode, Sampling]
    native_context_tokens: int
    max_context_tokens: int
    license: str
    released: str | None = None
    repositories: tuple[Repository, ...] = ()
    aliases: tuple[str, ...] = ()
    path: Path | None = None
    path_format: Format | None = None
    """Format of what lies at ``path``."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The processor that this process may use."""

    name: str | None
    machine: str
    physical_cores: int | None
    logical_cores: int | None
    usable_cores: float | None
    """After affinity and cgroup quota; may be a fraction."""
    instruction_sets: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator with memory of its own."""

    index: int
    vendor: Literal["nvidia", "amd", "apple"]
    name: str
    memory_total_bytes: int | None
    memory_free_bytes: int | None
    compute_capability: tuple[int, int] | None = None
    driver: str | None = None
    bandwidth_bytes_per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What was found on a machine (or written in a ``--hardware`` file)."""

    system: str
    cpu: Cpu
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    """What a new process may take now: the least of free memory and the cgroup's limit."""
    memory_limit_bytes: int | None = None
    """The cgroup (container) limit, where there is one."""
    gpus: tuple[Gpu, ...] = ()
    unified_memory: bool = False
    disk_free_bytes: int | None = None
    source: str = "this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLine:
    """One addend of a memory sum."""

    label: str
    size_bytes: int
    formula: str
    """How the number came about, with its inputs, to be read by a person."""
    where: Literal["host", "gpu"] = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be run: model x format x platform x context x placement, with bytes and reasons."""

    model: Model
    format: Format
    platform: str
    context_tokens: int
    parallel: int = 1
    """Requests served at once; each has ``context_tokens``."""
    kv_cache_type: KvCacheType = "f16"
    threads: int | None = None
    gpu_layers: int = 0
    cpu_moe_layers: int = 0
    gpus: int = 0
    """Cards used: the degree of tensor parallelism on engines that have it."""
    memory: tuple[MemoryLine, ...] = ()
    reasons: tuple[str, ...] = ()

    def memory_bytes(self, where: Literal["host", "gpu"] | None = None) -> int:
        """The sum over ``memory``, in one place or in both."""
        return sum(x.size_bytes for x in self.memory if where is None or x.where == where)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One verified file of an artifact."""

    name: str
    """Path relative to the artifact's folder, ``/`` separated."""
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Verified files in the store."""

    id: str
    """sha256 over the sorted ``sha256  name`` lines of the files."""
    model: str
    format: Format
    path: Path
    """A folder (safetensors, mlx) or the (first) ``.gguf`` file, to hand to an engine."""
    files: tuple[StoredFile, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where it came from: source, repository, revision, converted_from, tool …"""

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(f.size_bytes for f in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start an engine as a child process: plain data, printed by ``--dry-run``."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the parent's environment."""
    base_url: str
    ready_path: str = "/health"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server that was running before qwharf came."""

    url: str
    """Its root, without a trailing slash or ``/v1``."""
    model: str
    """The name that it gives the model."""
    kind: str
    """What it was found to be: a platform's name, or ``openai`` for any other."""
    api_key_variable: str | None = None
    """The environment variable that holds its key; the key itself is never written down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec:
    """What the daemon is asked to run; everything it needs and nothing it must guess."""

    name: str
    platform: str
    model: str
    thinking: Thinking
    format: Format
    artifact_id: str
    artifact_path: Path
    architecture: Architecture
    context_tokens: int
    parallel: int = 1
    kv_cache_type: KvCacheType = "f16"
    threads: int | None = None
    gpu_layers: int = 0
    cpu_moe_layers: int = 0
    gpus: int = 0
    """Cards used; 0: the processor alone."""
    native_context_tokens: int | None = None
    """What the model was trained for; beyond it, its positions must be stretched (YaRN)."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """LoRA adapters by the name that requests ask for."""
    engine_version: str | None = None
    """Of several installed ones; ``None``: the platform's choice."""
    endpoint: Endpoint | None = None
    """Somebody else's server, for the platform ``endpoint``; then ``artifact_id`` is empty."""
    sampling: Mapping[Mode, Sampling] = field(default_factory=dict)
    expected_memory_bytes: int | None = None
    may_copy: bool = False
    """Whether a service may get a second copy of the weights where no link leads to it."""

    @property
    def names(self) -> tuple[str, ...]:
        """What requests may ask for: the deployment, then its adapters."""
        return (self.name, *self.adapters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment as its owner, the daemon, sees it."""

    spec: DeploymentSpec
    state: DeploymentState
    base_url: str
    """The gateway's OpenAI base URL, ending in ``/v1``."""
    engine_url: str | None = None
    """The engine behind it, while it runs."""
    engine: str | None = None
    """Engine name and version."""
    pid: int | None = None
    created_at: float = 0.0
    ready_at: float | None = None
    restarts: int = 0
    memory_bytes: int | None = None
    """What the engine reported to have allocated (weights + KV + compute)."""
    rss_bytes: int | None = None
    detail: str | None = None
    """Why it failed, from the engine's own log."""
    verified: Literal["pass", "fail"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One verified fact of the Qwen3 contract."""

    id: str
    title: str
    status: CheckStatus
    expected: str
    found: str
    meaning: str
    """What a failure means for the user; for a skip, why it was skipped."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One verification run, with what it was run on."""

    deployment: str
    base_url: str
    model: str
    thinking: Thinking
    checks: tuple[Check, ...]
    created_at: float
    versions: Mapping[str, str] = field(default_factory=dict)
    spec: DeploymentSpec | None = None

    @property
    def passed(self) -> bool:
        """No check failed (a skipped one is named in the report, but is not a failure)."""
        return all(c.status != "fail" for c in self.checks)
