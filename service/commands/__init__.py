"""The commands of `mixserve` that talk to a service, and those that look after one."""
