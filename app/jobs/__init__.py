"""Job queue, state machine and worker: from the accepted request to the stored video file."""
