"""A Chromium for the browser tests: where it is, and putting it in place where that can be done."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",  # root in a container has no other choice
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def browser_path() -> str | None:
    """Returns the first Chromium on the PATH."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def can_install() -> bool:
    """Returns whether this is root on a Debian with apt-get."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def main() -> None:
    """Ends with 0 when a browser is there, or could be installed; with 1 and a sentence otherwise."""
    if browser_path():
        return
    if can_install():
        print("the browser tests need Chromium; installing Debian's", flush=True)
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.run(
                ["apt-get", "--quiet", *arguments],
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                check=False,
            )
    if not browser_path():
        sys.exit(
            f"the browser tests need one of {', '.join(NAMES)} on the PATH; on Debian: "
            "apt-get install chromium (as root)"
        )


if __name__ == "__main__":
    main()
