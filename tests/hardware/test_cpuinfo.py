"""Reading ``/proc/cpuinfo``: shortened literals of real machines, and nonsense."""

from hypothesis import given
from hypothesis import strategies as st

from qwharf.hardware.cpuinfo import parse_cpuinfo

X86 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model\t\t: 1
model name\t: AMD EPYC 7763 64-Core Processor
physical id\t: 0
siblings\t: 2
core id\t\t: 0
cpu cores\t: 1
flags\t\t: fpu sse2 avx avx2 fma f16c
bugs\t\t: spectre_v1

processor\t: 1
model name\t: AMD EPYC 7763 64-Core Processor
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse2 avx avx2 fma f16c

processor\t: 2
model name\t: AMD EPYC 7763 64-Core Processor
physical id\t: 1
core id\t\t: 0
flags\t\t: fpu sse2 avx avx2 fma f16c avx512f
"""

RASPBERRY = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

processor\t: 1
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08

Revision\t: c03114
Serial\t\t: 100000001234abcd
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""

GRAVITON = """\
processor\t: 0
Features\t: fp asimd aes sha2 asimddp sve i8mm bf16 sve2
CPU implementer\t: 0x41
CPU part\t: 0xd4f
"""


def test_x86_counts_cores_and_threads_apart() -> None:
    found = parse_cpuinfo(X86)
    assert found.name == "AMD EPYC 7763 64-Core Processor"
    assert (found.physical_cores, found.logical_cores) == (2, 3)


def test_instructions_are_those_that_every_core_has() -> None:
    found = parse_cpuinfo(X86).instruction_sets
    assert {"avx2", "fma", "f16c"} <= found
    assert "avx512f" not in found


def test_arm_is_named_by_its_register_codes() -> None:
    found = parse_cpuinfo(RASPBERRY)
    assert found.name == "Arm Cortex-A72"
    assert found.logical_cores == 2
    assert found.physical_cores is None
    assert "neon" in found.instruction_sets


def test_a_server_arm() -> None:
    found = parse_cpuinfo(GRAVITON)
    assert found.name == "Arm Neoverse V2"
    assert {"neon", "sve", "asimddp", "i8mm", "bf16"} <= found.instruction_sets


def test_an_unknown_arm_part_is_told_by_number() -> None:
    found = parse_cpuinfo("processor: 0\nCPU implementer: 0xc0\nCPU part: 0xac3\n")
    assert found.name == "Ampere part 0xac3"


def test_a_board_without_codes_is_told_by_its_model() -> None:
    found = parse_cpuinfo("processor: 0\nisa: rv64gc\n\nModel: StarFive VisionFive 2\n")
    assert found.name == "StarFive VisionFive 2"


def test_a_bare_model_number_is_no_name() -> None:
    assert parse_cpuinfo("processor: 0\nmodel: 158\n").name is None


def test_silence_is_unknown() -> None:
    found = parse_cpuinfo("")
    assert (found.name, found.physical_cores, found.logical_cores) == (None, None, None)
    assert found.instruction_sets == frozenset()


@given(st.text())
def test_anything_is_read_without_an_error(text: str) -> None:
    found = parse_cpuinfo(text)
    assert found.logical_cores is None or found.logical_cores > 0


@given(st.lists(st.sampled_from(X86.splitlines(keepends=True) + RASPBERRY.splitlines(True))))
def test_shuffled_lines_are_read_without_an_error(lines: list[str]) -> None:
    found = parse_cpuinfo("".join(lines))
    assert found.physical_cores is None or found.physical_cores <= 2
