"""Which folders of others may be read: those below a prefix that whoever runs the service has named."""

import re
from dataclasses import dataclass

from service.errors import FieldError, Unprocessable

_LONGEST = 1024
_SCHEME = re.compile(r"(?:file:///|s3://)")
# Nothing here is decoded, resolved or put in another form before it is compared or opened, so that what is
# compared is what is opened; whatever would need that is refused.
_ESCAPING = re.compile(r"[%\\?#]")


@dataclass(frozen=True)
class AllowedUrl:
    """A URL that may be read.

    Attributes:
        url: As it was given, without a slash at its end.
        prefix: The one that it is below, with the parameters for whoever opens it.
        rest: What follows the prefix, empty or parts with slashes between them.
    """

    url: str
    prefix: str
    rest: str


class AllowedUrls:
    """The prefixes, and what is below them.

    Args:
        prefixes: URLs separated by spaces, each with its parameters (`?region=...`) if it needs some.
    """

    def __init__(self, prefixes: str = "") -> None:
        self._prefixes = {prefix.partition("?")[0].rstrip("/"): prefix for prefix in prefixes.split()}

    def find(self, url: str) -> AllowedUrl:
        """Returns where a URL is.

        Raises:
            Unprocessable: It is not below any of the prefixes (URL_NOT_ALLOWED), or no URL to be read at all.
        """
        if not self._prefixes:
            raise _refused(
                "this service reads no URLs; upload the points, or have MIXSERVE_DATASET_PREFIXES set"
            )
        _require_plain(url)
        url = url.removesuffix("/")
        below = [base for base in self._prefixes if url == base or url.startswith(f"{base}/")]
        if not below:
            raise _refused(f"it must be below one of {', '.join(sorted(self._prefixes))}")
        base = max(below, key=len)
        return AllowedUrl(url, self._prefixes[base], url[len(base) + 1 :])


def _require_plain(url: str) -> None:
    if len(url) > _LONGEST:
        raise _refused(f"it has {len(url)} characters; at most {_LONGEST} are taken")
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise _refused("it must begin with s3:// or file:///, in small letters")
    if _ESCAPING.search(url) or not url.isprintable():
        raise _refused("it must be written out plainly, without %, ?, #, backslashes and control characters")
    parts = url[scheme.end() :].removesuffix("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise _refused("no part between its slashes may be empty, . or ..")
    if scheme[0] == "s3://" and "@" in parts[0]:
        raise _refused("it must hold no credentials; the service has its own")


def _refused(message: str) -> Unprocessable:
    return Unprocessable(
        f"The URL cannot be read: {message}.", [FieldError(("url",), message)], code="URL_NOT_ALLOWED"
    )
