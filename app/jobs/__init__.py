"""A video from the request to the finished file: queue, state machine, worker."""
