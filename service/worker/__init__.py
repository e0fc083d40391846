"""Takes a fit from the queue, runs it on a device, reports progress, saves the mixture."""
