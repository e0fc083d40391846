"""What there is to compute on."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.worker import device


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def properties(index: int) -> SimpleNamespace:
        return SimpleNamespace(name=f"GPU {index}", total_memory=(index + 1) * 2**30)

    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(device.torch.cuda, "get_device_properties", properties)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device.torch.cuda, "device_count", lambda: 0)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu() -> None:
    found = device.detect("auto")
    assert found == device.detect("cpu")
    assert (found.device, found.type) == ("cpu", "cpu")
    assert found.name
    assert 0 < found.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("wanted", "n_workers", "slots"),
    [("auto", None, ["cpu"]), ("cpu", 3, ["cpu"] * 3), ("auto", 2, ["cpu"] * 2), ("cpu", 0, [])],
)
def test_without_a_gpu_workers_share_the_cpu(wanted: str, n_workers: int | None, slots: list[str]) -> None:
    assert device.slots(wanted, n_workers) == slots


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("wanted", "n_workers", "slots"),
    [
        ("auto", None, ["cuda:0", "cuda:1"]),
        ("auto", 1, ["cuda:0"]),
        ("auto", 3, ["cuda:0", "cuda:1", "cuda:0"]),
        ("cuda:1", None, ["cuda:1"]),
        ("cpu", None, ["cpu"]),
        ("auto", 0, []),
    ],
)
def test_workers_take_gpus_in_turn(wanted: str, n_workers: int | None, slots: list[str]) -> None:
    assert device.slots(wanted, n_workers) == slots


@pytest.mark.usefixtures("no_gpu")
def test_no_worker_is_started_for_a_device_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="there is no cuda:3"):
        device.slots("cuda:3", 2)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("wanted", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpu_is_found_by_its_name(wanted: str, index: int) -> None:
    found = device.detect(wanted)
    assert (found.device, found.type) == (f"cuda:{index}", "cuda")
    assert (found.name, found.memory_bytes) == (f"GPU {index}", (index + 1) * 2**30)


@pytest.mark.usefixtures("two_gpus")
def test_who_names_no_gpu_has_all_of_them() -> None:
    assert [device.detect(wanted).n_devices for wanted in ("auto", "cuda", "cuda:0", "cuda:1")] == [
        2,
        2,
        1,
        1,
    ]
    assert device.detect("cuda", 1).n_devices == 1
    with pytest.raises(ValueError, match="no 3 devices cuda, but 2"):
        device.detect("cuda", 3)


def test_a_cpu_has_as_many_devices_as_cores_unless_told() -> None:
    assert device.detect("cpu").n_devices == len(os.sched_getaffinity(0))
    assert device.detect("cpu", 3).n_devices == 3


@pytest.mark.usefixtures("two_gpus")
def test_the_cpu_can_be_had_beside_gpus() -> None:
    assert device.detect("cpu").device == "cpu"


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("wanted", ["cuda:2", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", ""])
def test_what_is_not_there_is_refused_by_name(wanted: str) -> None:
    with pytest.raises(ValueError, match="there is no") as refused:
        device.detect(wanted)
    assert wanted in str(refused.value)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("wanted", ["cuda", "cuda:0"])
def test_without_a_gpu_one_is_refused(wanted: str) -> None:
    with pytest.raises(ValueError, match=f"there is no {wanted}: torch sees 0 CUDA devices"):
        device.detect(wanted)


def test_a_containers_share_of_memory_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(device, "_CGROUP_LIMIT", limit)
    whole = device.detect("cpu").memory_bytes
    limit.write_text("1048576\n")
    assert device.detect("cpu").memory_bytes == 1048576
    limit.write_text("max\n")
    assert device.detect("cpu").memory_bytes == whole
    limit.write_text(str(2**62))
    assert device.detect("cpu").memory_bytes == whole
