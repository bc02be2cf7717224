"""Checks of the requests that reach the app: who asks, and how much is uploaded."""

import re
from pathlib import Path

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_FILES = 64
MAX_TOTAL = 500_000_000  # bytes of all uploads that the app holds
MAX_OTHER = 1_000_000  # bytes of a request that is no upload
LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)


class CheckedRequests:
    """Refuse requests that do not come from the page itself, and uploads that are too large.

    Other web sites can make a browser send requests to this machine: with their own name in
    `Host` if that resolves to it (DNS rebinding), or else with their own name in `Origin`.

    Parameters
    ----------
    app : ASGI application
    uploads : Path
        Folder of the uploads, which need not exist yet.
    """

    def __init__(self, app: ASGIApp, uploads: Path) -> None:
        self.app = app
        self.uploads = uploads
        self.received = 0  # bytes of all uploads, since the start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if reason := why_foreign(headers):
            await PlainTextResponse(reason, 403)(scope, receive, send)
            return
        is_upload = scope["path"].rstrip("/").endswith("/upload")
        room = MAX_TOTAL - stored_bytes(self.uploads) if is_upload else MAX_OTHER
        reason = f"too large: {MAX_OTHER // 10**6} MB at most"
        if is_upload:
            reason = (
                f"exceeds the maximum allowed size of all uploads, {MAX_TOTAL // 10**6} MB;"
                " start the app again, which deletes the former ones"
            )
        if int(headers.get("content-length", 0)) > room:
            await PlainTextResponse(reason, 413)(scope, receive, send)
            return
        limited = self.limit_upload if is_upload else limit_body
        await self.app(scope, limited(headers, receive, room, reason), send)

    def limit_upload(self, headers: Headers, receive: Receive, room: int, reason: str) -> Receive:
        """Return a `receive` that ends an upload of too many bytes or files.

        It raises the exception at which Gradio deletes what it has got of the upload.
        """
        before = self.received
        parts = 0

        def count_part() -> None:
            nonlocal parts
            parts += 1
            if parts > MAX_FILES:
                raise MultiPartException(f"more than {MAX_FILES} images at once")

        _, options = parse_options_header(headers.get("content-type"))
        boundary = options.get(b"boundary")
        parser = MultipartParser(boundary, {"on_part_begin": count_part}) if boundary else None

        async def limited() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise MultiPartException("the upload was interrupted")
            content = message.get("body", b"")
            self.received += len(content)
            if self.received - before > room:
                raise MultiPartException(reason)
            try:
                if parser:
                    parser.write(content)
            except MultiPartException:
                while message.get("more_body"):  # a browser shows no answer before it has sent all
                    message = await receive()
                raise
            return message

        return limited


def limit_body(_headers: Headers, receive: Receive, room: int, reason: str) -> Receive:
    """Return a `receive` that ends a request of too many bytes."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > room:
            raise HTTPException(413, reason)
        return message

    return limited


def why_foreign(headers: Headers) -> str | None:
    """Return why a request may come from another web site; None if it does not."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or not LOOPBACK.fullmatch(hosts[0]):
        return "Host is not this machine; expected 127.0.0.1, localhost or [::1]"
    if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
        return "Origin is not this page"
    return None


def stored_bytes(folder: Path) -> int:
    """Return the size of all files in a folder, which need not exist, in bytes."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.lstat().st_size
        except FileNotFoundError:  # deleted meanwhile
            continue
    return total
