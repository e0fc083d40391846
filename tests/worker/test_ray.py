"""Fits on a Ray cluster, in a network that has only a loopback: what it loses, no fit loses."""

import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from service.settings import Settings
from service.storage import migrations
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.tables import FitRow
from service.worker import ray_fitter
from service.worker.ray_cluster import RayCluster, is_reachable
from service.worker.ray_rank import RayRank
from tests.serving import environment
from tests.storage.making import add_dataset, fit_row, queue_fit
from tests.worker.conftest import POINTS, until

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "deploy" / "kuberay.yaml"
HEAD = "127.0.0.1:6379"
# Ray takes seconds for everything, and more on a busy machine.
PATIENCE_SECONDS = 120
# Starts whatever follows with the loopback up; a fresh network namespace has it down, and nothing else.
_LOOPBACK_UP = (
    "import fcntl, os, socket, struct, sys;"
    "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh22x', b'lo', 0x41));"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
LONG = {"n_components": 2, "n_init": 1, "tolerance": 0, "max_steps": 10**9, "optimizer": {"name": "sgd"}}


@dataclass
class Network:
    """A network without a way out, and the processes in it."""

    holder: int
    folder: Path

    def popen(self, *command: str, **settings: Any) -> subprocess.Popen[str]:
        ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
        with (self.folder / "output").open("a") as output:
            return subprocess.Popen(
                ["nsenter", f"--net=/proc/{self.holder}/ns/net", *command],
                env=environment(**settings) | ray | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def start_head(self) -> None:
        command = [
            str(Path(sys.executable).parent / "ray"), "start", "--head", "--node-ip-address=127.0.0.1",
            "--port=6379", "--num-cpus=3", "--num-gpus=0", "--include-dashboard=false",
            "--disable-usage-stats", f"--temp-dir={self.folder / 'r'}", "--object-store-memory=100000000",
        ]  # fmt: skip
        started = self.popen(*command)
        assert started.wait(PATIENCE_SECONDS) == 0, (self.folder / "output").read_text()

    def processes(self, *words: str) -> list[int]:
        """The processes in this network whose command line has these words."""
        own = os.readlink(f"/proc/{self.holder}/ns/net")
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != self.holder:
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if os.readlink(entry / "ns" / "net") == own and all(word in line for word in words):
                        found.append(int(entry.name))
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue  # it has ended
        return found

    def kill(self, *words: str) -> int:
        """Kills those processes; returns how many there were."""
        found = self.processes(*words)
        for process_id in found:
            try:
                os.kill(process_id, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(found)


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    command = ["unshare", "--net", sys.executable, "-c", _LOOPBACK_UP, "sleep", "600"]
    holder = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: holder.poll() is not None or _sleeps(holder.pid))
        told = "" if holder.poll() is None else (holder.stderr or sys.stdin).read()
        assert holder.poll() is None, (
            f"Ray binds to every address, so this needs a network of its own: {told}"
        )
        made = Network(holder.pid, folder)
        yield made
        until(lambda: made.kill() == 0)
    finally:
        holder.kill()
        holder.wait()
        assert holder.stderr is not None
        holder.stderr.close()


def _sleeps(process_id: int) -> bool:
    return b"sleep" in Path(f"/proc/{process_id}/cmdline").read_bytes().split(b"\0")[0]


@dataclass
class Cluster:
    """A Ray cluster, and a worker that has its fits done there."""

    network: Network
    database: Database
    store: DatasetStore
    dataset_id: str

    def queue(self, **fields: Any) -> str:
        return queue_fit(self.database, self.dataset_id, **({"n_components": 2, "n_init": 1} | fields))

    def row(self, fit_id: str) -> FitRow:
        return fit_row(self.database, fit_id)

    def until(self, fit_id: str, what: Any) -> FitRow:
        """The row when something is true of it."""
        until(lambda: what(self.row(fit_id)), PATIENCE_SECONDS)
        return self.row(fit_id)


@contextmanager
def clustered(folder: Path) -> Iterator[Cluster]:
    """Yields a cluster whose files are in a folder; the sockets of Ray need a short path to it."""
    folder.mkdir()
    own = Settings(data_dir=folder / "data")
    settings = {"data_dir": own.data_dir, "lease_seconds": 10, "max_attempts": 2, "checkpoint_seconds": 0.2}
    database = Database(own.resolved_database_url)
    migrations.upgrade(database)
    store = DatasetStore(own.dataset_store_folder)
    with network(folder) as net:
        net.start_head()
        worker = net.popen(sys.executable, "-m", "service", "worker", ray_address=HEAD, **settings)
        yield Cluster(net, database, store, add_dataset(database, store, POINTS))
        worker.terminate()
        worker.wait(PATIENCE_SECONDS)
    database.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="ray") as short, clustered(Path(short) / "m") as made:
        yield made


@pytest.mark.timeout(400)
def test_fits_are_done_on_the_cluster_whatever_it_loses(cluster: Cluster) -> None:
    one, two = cluster.queue(), cluster.queue(devices=2)
    for fit_id, n_ranks in ((one, 1), (two, 2)):
        ended = cluster.until(fit_id, lambda row: row.finished_at is not None)
        assert ended.status == "succeeded", ended.error
        assert ended.result is not None
        assert ended.result["devices"] == n_ranks
        means = np.array(sorted(ended.result["mixture"]["means"]))
        np.testing.assert_allclose(means, [[0, 0], [4, 4]], atol=0.5)
    first, second = cluster.row(one).result, cluster.row(two).result
    assert first is not None and second is not None  # noqa: PT018
    assert first["log_likelihood"] == pytest.approx(second["log_likelihood"], rel=1e-9)

    # A process that Ray has placed is killed: the fit goes on elsewhere from its checkpoint.
    lost = cluster.queue(**LONG)
    cluster.until(lost, lambda row: row.progress is not None and row.progress["step"] > 0)
    assert cluster.network.kill("ray::RayRank") == 1
    again = cluster.until(lost, lambda row: row.attempt == 2 and row.status == "running")
    assert again.n_workers_lost == 1

    # The whole cluster goes: the fit is free for others, and that is no loss of its own.
    cluster.until(lost, lambda row: row.progress is not None)
    assert cluster.network.kill("gcs_server") == 1
    cluster.network.kill("raylet")
    freed = cluster.until(lost, lambda row: row.status == "queued")
    assert (freed.n_workers_lost, freed.error) == (1, None)

    # Another is there at its address: the same worker goes on with it.
    until(lambda: cluster.network.kill("ray::") == 0)
    cluster.network.start_head()
    cluster.until(lost, lambda row: row.status == "running" and row.attempt == 3)
    with cluster.database.write() as session:
        session.get_one(FitRow, lost).cancel_requested_at = freed.created_at
    assert cluster.until(lost, lambda row: row.finished_at is not None).status == "cancelled"


def test_a_rank_asks_for_what_it_computes_on() -> None:
    cluster = RayCluster(HEAD, 4)
    assert ray_fitter._needs(cluster, "cuda:3") == {"num_gpus": 1, "num_cpus": 4}
    assert ray_fitter._needs(cluster, "cpu") == {"num_gpus": 0, "num_cpus": 4}


def test_a_rank_logs_as_its_worker_does(monkeypatch: pytest.MonkeyPatch) -> None:
    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers[:], root.level
    root.handlers = []
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        RayRank(("warning", "json"))
        logging.getLogger("service.worker.rank").info("all is well")
        logging.getLogger("service.worker.rank").warning("rank 1 is gone")
    finally:
        root.handlers, root.level = before
    said = json.loads(stream.getvalue())
    assert (said["event"], said["logger"], said["level"]) == (
        "rank 1 is gone",
        "service.worker.rank",
        "warning",
    )


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "head:6379", "[::2]:6379", "auto:1"])
def test_an_address_elsewhere_needs_tokens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(ValidationError, match="RAY_AUTH_MODE=token"):
        Settings(ray_address=address)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ValidationError, match="RAY_AUTH_MODE=token"):
        Settings(ray_address=address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert Settings(ray_address=address).ray_address == address


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "localhost:6379", "[::1]:6379"])
def test_one_on_this_machine_does_not(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert Settings(ray_address=address).ray_address == address


@pytest.mark.parametrize("address", ["auto", "head", "head:port", "ray://head:10001x", ":6379"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(ValidationError, match="host:port"):
        Settings(ray_address=address)


def test_what_listens_is_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert is_reachable(address)
    assert not is_reachable(address)


def test_the_manifest_for_kuberay_holds_together() -> None:
    read = yaml.safe_load_all(MANIFEST.read_text())
    documents = {(each["kind"], each["metadata"]["name"]): each for each in read}
    cluster = documents["RayCluster", "mixserve"]["spec"]
    assert documents["RayCluster", "mixserve"]["apiVersion"] == "ray.io/v1"
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster.keys() == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    workers = documents["Deployment", "mixserve-worker"]["spec"]["template"]
    pods = [*(group["template"] for group in groups), workers]
    assert len({each["image"] for pod in pods for each in pod["spec"]["containers"]}) == 1
    (container,) = workers["spec"]["containers"]
    named = {each["name"]: each for each in container["env"]}
    settings = {f"MIXSERVE_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in named if name.startswith("MIXSERVE_")} <= settings
    assert (
        named["MIXSERVE_RAY_ADDRESS"]["value"] == "mixserve-head-svc:6379"
    )  # as KubeRay names a head's service
    assert named["RAY_AUTH_MODE"]["value"] == "token"
    assert named["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "mixserve", "key": "auth_token"}
    assert "MIXSERVE_DATASET_STORE_URL" in named
    assert "MIXSERVE_DATABASE_URL" in named
