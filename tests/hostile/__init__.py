import os

AT_LENGTH = os.environ.get("HOSTILE") == "at length"
"""Whether there is more time than a run of all tests has: `make hostile`."""
