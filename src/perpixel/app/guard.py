"""What stands before every request: size, origin, host and password. Plain ASGI: it covers all that is served."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perpixel.errors import RequestError

__all__ = ["Guard", "is_loopback", "read_passwords"]

_OVERHEAD = 1_000_000  # bytes of a multipart form beside its files
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# The browser itself sees to it that the page asks nothing of the network.
_HEADERS = {
    b"content-security-policy": b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self';"
    b" form-action 'self'; object-src 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that is bound to ``host``."""
    return host in _LOOPBACK


def read_passwords(path: Path) -> dict[str, str]:
    """A line ``name:password`` a visitor; empty lines and ``#`` lines are left out.

    Raises:
        RequestError: no such file, a line without a colon, or nobody in it. No password is repeated in the message.
    """
    if not path.is_file():
        raise RequestError("there is no such file", where=path, cure="write a line name:password for each visitor.")
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.strip().partition(":")
        if not (name and colon and password):
            raise RequestError("a line is no name:password", where=f"{path}, line {number}")
        found[name] = password
    if not found:
        raise RequestError("nobody is named in this file", where=path, cure="write a line name:password.")
    return found


class Guard:
    """Refuses what is too large, comes from another site's page, names another host, or has no password."""

    def __init__(self, app: ASGIApp, *, upload_bytes: int, passwords: Mapping[str, str], loopback: bool) -> None:
        """``loopback``: the server is bound to this machine alone, so it is asked for under no other name: a page of
        another site whose name was made to point here is turned away."""
        self.app, self.passwords, self.loopback = app, passwords, loopback
        self.largest = 2 * upload_bytes + _OVERHEAD  # an image and its truth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self._refusal(headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self.app(scope, _bounded(receive, self.largest), _with_headers(send))

    def _refusal(self, headers: Mapping[str, str]) -> PlainTextResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.loopback and (urlsplit(f"//{host}").hostname or "") not in _LOOPBACK:
            return PlainTextResponse("This server is asked for as 127.0.0.1 or localhost.", 421)
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("Pages of other sites may not use this server.", 403)
        if headers.get("content-length", "0").isdecimal() and int(headers.get("content-length", "0")) > self.largest:
            return PlainTextResponse(f"A request has at most {self.largest / 1e6:.0f} MB.", 413)
        if self.passwords and not self._knows(headers.get("authorization", "")):
            return PlainTextResponse(
                "Name and password are needed.", 401, {"www-authenticate": 'Basic realm="perpixel", charset="UTF-8"'}
            )
        return None

    def _knows(self, authorization: str) -> bool:
        kind, _, text = authorization.partition(" ")
        try:
            name, _, password = base64.b64decode(text, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        expected = self.passwords.get(name, "")
        same = hmac.compare_digest(expected.encode(), password.encode())
        return kind.lower() == "basic" and bool(expected) and same


class TooLargeError(Exception):
    """A body without a stated length went on and on."""


def _bounded(receive: Receive, largest: int) -> Receive:
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > largest:
            raise TooLargeError
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            present: list[Any] = list(message.get("headers", []))
            named = {key.lower() for key, _ in present}
            message["headers"] = present + [(key, value) for key, value in _HEADERS.items() if key not in named]
        await send(message)

    return adding
