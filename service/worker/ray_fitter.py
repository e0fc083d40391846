"""The process that has fits done on a Ray cluster: it computes nothing, and speaks as a fitter does.

Ray keeps nothing that a fit needs. What this process hears goes to its supervisor, which has the lease and
the database; what it has placed ends with it. With the cluster out of reach it ends, too.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from service.settings import Settings
from service.storage.dataset_store import StorePlace
from service.storage.workers import Device
from service.worker import device, gang
from service.worker.fitter import ignore_signals
from service.worker.messages import Finished, Lost, Ready, Refused, Start, Stop, Stopped
from service.worker.ranks import Seat
from service.worker.ray_cluster import RayCluster, is_reachable
from service.worker.ray_rank import RayRank
from service.worker.reporting import Inbox

_LOOK_SECONDS = 0.2
_PULSE_SECONDS = 1.0
# So often a cluster may fail to answer in a row.
_PATIENCE = 3
# It says and hears while it begins; once lost it is not made again, for whoever placed it begins anew.
_RANK = ray.remote(max_restarts=0, max_concurrency=3)(RayRank)


def main(
    connection: Connection,
    cluster: RayCluster,
    wanted_device: str,
    n_devices: int | None,
    store_place: StorePlace,
    settings: Settings | None,
) -> None:
    """Has one fit after another done, as they come through the connection."""
    ignore_signals()
    inbox = Inbox(connection)
    while not is_reachable(cluster.address):
        time.sleep(_LOOK_SECONDS)
    ray.init(cluster.address, log_to_driver=False, logging_level="WARNING", namespace="mixserve")
    threading.Thread(target=_leave_with, args=(cluster.address,), daemon=True).start()
    try:
        found = _found(cluster, wanted_device, n_devices)
    except ValueError as error:
        connection.send(Refused(str(error)))
        return
    connection.send(Ready(found))
    while True:
        start = inbox.starts.get()
        devices = gang.devices_for(start.claim, found)
        try:
            connection.send(_placed(start, devices, cluster, store_place, settings, connection, inbox))
        except RayError as error:
            connection.send(Lost(f"{type(error).__name__}: {error}"[:500]))


def _leave_with(address: str) -> None:
    """Ends this process when the cluster has been out of reach for some seconds."""
    failures = 0
    while failures < _PATIENCE:
        time.sleep(_PULSE_SECONDS)
        failures = 0 if is_reachable(address) else failures + 1
    os._exit(1)  # Ray itself would wait for a minute, and then end it


def _found(cluster: RayCluster, wanted: str, n_devices: int | None) -> Device:
    """Returns what fits are done on: the cluster's GPUs, where it has some, else its cores.

    Raises:
        ValueError: It has not what is wanted.
    """
    there = ray.cluster_resources()
    n_gpus, n_cpus = int(there.get("GPU", 0)), int(there.get("CPU", 0))
    kind = "cuda" if n_gpus and wanted == "auto" else "cpu" if wanted == "auto" else wanted
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"on a Ray cluster there is no {wanted}; use --device auto, cpu or cuda")
    n_there = n_gpus if kind == "cuda" else n_cpus // cluster.cpus_per_rank
    if n_there < (n_devices or 1):
        raise ValueError(f"the Ray cluster has room for {n_there} ranks on {kind}, less than are wanted")
    probe = ray.remote(device.detect).options(**_needs(cluster, kind))
    one: Device = ray.get(probe.remote(kind, 1))
    return Device(one.device, f"{one.name} (Ray)", one.memory_bytes, n_devices or n_there)


def _needs(cluster: RayCluster, device_name: str) -> dict[str, float]:
    """Returns what Ray is asked for to do one rank."""
    return {"num_gpus": int(device_name.startswith("cuda")), "num_cpus": cluster.cpus_per_rank}


def _placed(
    start: Start,
    devices: list[str],
    cluster: RayCluster,
    store_place: StorePlace,
    settings: Settings | None,
    connection: Connection,
    inbox: Inbox,
) -> Finished | Lost:
    """Returns how a fit ended that Ray has placed; what its ranks say before goes through the connection."""
    # Whatever GPU a rank is given is the only one that it sees.
    needs = _needs(cluster, "cpu" if start.claim.request["device"] == "cpu" else devices[0])
    # Of the settings no more than these: the others have passwords, and a cluster keeps what it is sent.
    log = None if settings is None else (settings.log_level, settings.log_format)
    with _ranks(len(devices), needs, log, inbox) as ranks:
        if not ranks:
            return Finished(Stopped(), None)
        meeting = ray.get(ranks[0].meeting.remote()) if len(ranks) > 1 else ""
        own = "cuda:0" if needs["num_gpus"] else "cpu"
        for place, rank in enumerate(ranks):
            seat = Seat(place, len(ranks), meeting, own)
            rank.begin.remote(seat, start, store_place, cluster.cpus_per_rank)
        return _heard(ranks, connection, inbox)


@contextmanager
def _ranks(
    size: int, needs: dict[str, float], log: tuple[str, str] | None, inbox: Inbox
) -> Iterator[list[Any]]:
    """Yields the ranks when all of them have their places; none when the fit is to end before. Ends them."""
    group: PlacementGroup | None = None
    options: dict[str, Any] = dict(needs)
    ranks: list[Any] = []
    try:
        if size > 1:
            bundle = {"CPU": needs["num_cpus"]} | ({"GPU": needs["num_gpus"]} if needs["num_gpus"] else {})
            group = placement_group([bundle] * size, strategy="PACK")
        for place in range(size):
            if group is not None:
                options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, place)
            ranks.append(_RANK.options(**options).remote(log))
        there = [rank.is_there.remote() for rank in ranks]
        while len(ray.wait(there, num_returns=size, timeout=_LOOK_SECONDS)[0]) < size:
            if inbox.told_to_stop is not None:
                yield []
                return
        ray.get(there)
        yield ranks
    finally:
        for rank in ranks:
            ray.kill(rank)
        if group is not None:
            remove_placement_group(group)


def _heard(ranks: list[Any], connection: Connection, inbox: Inbox) -> Finished | Lost:
    """Returns how a fit ended; a rank that has died raises `RayError`."""
    asked = {rank.hear.remote(): rank for rank in ranks}
    told = False
    while True:
        for answer in ray.wait(list(asked), timeout=_LOOK_SECONDS)[0]:
            rank = asked.pop(answer)
            for message in ray.get(answer):
                if isinstance(message, Finished | Lost):
                    return message
                connection.send(message)
            asked[rank.hear.remote()] = rank
        if inbox.told_to_stop is not None and not told:
            ranks[0].stop.remote(Stop(inbox.told_to_stop))
            told = True
