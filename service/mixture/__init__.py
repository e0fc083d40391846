"""The numerical core: mixtures, their densities, and fits by gradient descent. Torch and numpy, no I/O."""
