"""The command `mixserve`, as `python -m service`.

A process that starts others by spawning has them run its main module again, unless that is a package's: what
fits needs nothing of the command line.
"""

from service.cli import main

main()
