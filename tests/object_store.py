"""An object store on this machine: moto's S3."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pyarrow import fs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what moto stands on
    from moto.server import ThreadedMotoServer


@contextmanager
def bucket_of_this_machine(name: str = "points") -> Iterator[str]:
    """Yields the parameters for a URL in an empty bucket; the environment has its credentials meanwhile."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = {name: os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    os.environ.update(dict.fromkeys(before, "test"))
    query = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    try:
        files, _ = fs.FileSystem.from_uri(f"s3://{name}?{query}&allow_bucket_creation=true")
        files.create_dir(name)
        yield query
    finally:
        server.stop()
        for variable, value in before.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value
