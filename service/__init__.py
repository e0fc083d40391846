"""mixserve: a REST service that fits Gaussian mixture models by gradient descent."""
