"""HTTP endpoints: they read a request, ask storage or the numerical core, and render the answer."""
