"""Errors of this library that are not Python's or scikit-learn's own."""

__all__ = ["PeerError"]


class PeerError(RuntimeError):
    """Another process of the group that fits a model together has failed, and the fit was stopped in all.

    The process that failed raises its own error; the message tells its rank and what it was. The estimator is as it was
    before the call.

    Parameters
    ----------
    message : str
        What has happened.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
