"""Workers, health, pages and problems."""

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field

from service.schemas.numbers import Answer

Item = TypeVar("Item")


class Device(Answer):
    """What a worker computes on."""

    type: Literal["cpu", "cuda"]
    name: str
    memory_bytes: Annotated[int, Field(description="of the whole device; of several GPUs, of each")]
    n_devices: Annotated[
        int, Field(description="how many `devices` a fit may ask of it: GPUs, or cores of a CPU")
    ]


class Worker(Answer):
    """A worker that has been heard of within a lease."""

    id: str
    hostname: str
    device: Device
    started_at: datetime
    last_heartbeat_at: datetime
    running_fit_ids: list[str]


class Health(Answer):
    """Whether the service can do its work."""

    status: Literal["ok", "unavailable"]
    checks: Annotated[dict[str, str], Field(description="ok, or what is wrong and what to do")] = Field(
        default_factory=dict
    )


class Page(Answer, Generic[Item]):
    """Some of a list, newest first. The absence of `next_page_token` is the only end mark."""

    items: list[Item]
    next_page_token: str | None = None


class ProblemField(Answer):
    """One place in a body that was wrong."""

    pointer: Annotated[
        str, Field(description="JSON pointer (RFC 6901) into the body, or the parameter's name")
    ]
    message: str


class Problem(Answer):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: Annotated[str, Field(description="what was wrong with which value, and what to do instead")]
    instance: Annotated[str, Field(description="the path asked for")]
    code: Annotated[str, Field(description="stable, UPPER_SNAKE")]
    request_id: str
    errors: Annotated[list[ProblemField] | None, Field(description="at most 20; bad bodies only")] = None
