"""A browser on the service: what a page asks for and what it complains of."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import Page

# A name that is not the loopback's: on a loopback, Swagger UI leaves its validator out by itself.
HOST = "mixserve.example"


@dataclass
class Visit:
    """A page, what it asked for, and what it complained of."""

    page: Page
    requested: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def hosts(self) -> set[str]:
        return {urlsplit(url).netloc for url in self.requested if not url.startswith("data:")}
