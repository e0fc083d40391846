"""The contract with clients as pydantic models: bodies in, answers out. A leaf: imports nothing of ours."""
