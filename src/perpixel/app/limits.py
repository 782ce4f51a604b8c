"""What one visitor may ask of the server, and the answer when it is too much."""

from __future__ import annotations

from dataclasses import dataclass

from perpixel.errors import PerpixelError

__all__ = ["BusyError", "Limits", "RefusedError", "SlowError"]


@dataclass(frozen=True)
class Limits:
    """Bounds of the server.

    Attributes:
        upload_bytes: of one file.
        pixels: of one picture.
        scores: numbers that the scores of one picture may hold, its pixels times the network's channels; float32.
        seconds: that a request may take in all, waiting included, and that decoding a picture may take.
        waiting: requests that wait for one model; more are turned away.
        models: that are kept in memory at once.
        files: in one call for many images.
        kept_seconds: after which results are removed.
        results: that are kept at most; the oldest go first.
    """

    upload_bytes: int = 50_000_000
    pixels: int = 25_000_000
    scores: int = 2**28
    seconds: float = 60.0
    waiting: int = 8
    models: int = 3
    files: int = 500
    kept_seconds: float = 3600.0
    results: int = 200


class RefusedError(PerpixelError):
    """Something that the server does not read or show, whoever asks."""

    exit_status = 2


class BusyError(PerpixelError):
    """The queue of a model is full; ``seconds`` says when to come again."""

    def __init__(self, name: str, waiting: int, seconds: float) -> None:
        self.seconds = max(1, round(seconds))
        super().__init__(
            f"{waiting} requests already wait for this model",
            where=name,
            cure=f"try again in about {self.seconds} s.",
        )


class SlowError(PerpixelError):
    """A request took longer than one may."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(
            f"this takes longer than the {seconds:.0f} s that a request may take",
            where=name,
            cure="make the picture smaller, or use `perpixel predict`.",
        )
