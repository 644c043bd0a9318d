"""The queue, the state machine and the worker.

Only this package changes the status of a video or the state of an attempt.
"""
