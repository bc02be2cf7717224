"""The app over HTTP: who may ask, how much may be uploaded, and what stays when it ends."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.project import Project
from tests.support.waiting import LIMIT_S, wait_for

UPLOAD = "/gradio_api/upload"
BOUNDARY = "boundary"


class App(NamedTuple):
    """An app that runs.

    Attributes
    ----------
    process : subprocess.Popen
    port : int
    temporary : Path
        Folder of all temporary files on its machine.
    """

    process: subprocess.Popen
    port: int
    temporary: Path

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        """Send a request, as the page does but for the headers; return status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        here = f"127.0.0.1:{self.port}"
        try:
            connection.putrequest("POST" if body is not None else "GET", path, skip_host=True)
            if body is not None:
                content_type = f"multipart/form-data; boundary={BOUNDARY}"
                headers = {
                    "Content-Type": content_type,
                    "Content-Length": str(len(body)),
                    **headers,
                }
            for name, value in {"Host": here, **headers}.items():
                connection.putheader(name, value.format(here=here))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    @property
    def uploads(self) -> list[Path]:
        """The uploaded files on the disk, in whole or in part."""
        uploads = [file for file in self.temporary.rglob("uploads/**/*") if file.is_file()]
        # Examples, which are there too, have names such as "glioma 1.png"
        return [file for file in uploads if " " not in file.name]

    def end(self, how: signal.Signals) -> int:
        """Send a signal; return the exit status."""
        os.killpg(self.process.pid, how)
        return self.process.wait(LIMIT_S)


def files(*contents: bytes) -> bytes:
    """Return the body of an upload of files."""
    parts = [
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=files; filename=Doe-{index}.png\r\n"
        f"\r\n".encode()
        + content
        + b"\r\n"
        for index, content in enumerate(contents)
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def start_app(project: Project, temporary: Path) -> App:
    """Start an app; its temporary files go to a folder."""
    temporary.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ("python", "-m", "brainmri.app", "--port", str(port))
    process = project.start("env", f"TMPDIR={temporary}", *command)
    app = App(process, port, temporary)
    assert wait_for(lambda: process.poll() is not None or answers(app))
    assert process.poll() is None
    return app


def answers(app: App) -> bool:
    try:
        return app.ask("/")[0] == 200
    except OSError:
        return False


@contextmanager
def running_app(project: Project, temporary: Path) -> Iterator[App]:
    app = start_app(project, temporary)
    try:
        yield app
    finally:
        if app.process.poll() is None:
            app.end(signal.SIGKILL)


def test_app_answers_its_own_page_alone_and_bounds_uploads(small, tmp_path):
    with running_app(small, tmp_path / "temporary") as app:
        upload = files(b"content")
        for headers in (
            {"Host": "evil.example"},
            {"Host": f"127.0.0.1.evil.example:{app.port}"},
            {"Host": f"192.168.0.1:{app.port}"},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Host": "evil.example", "Origin": "http://evil.example"},
        ):
            assert app.ask(UPLOAD, upload, **headers)[0] == 403, headers
            assert app.ask("/config", **headers)[0] == 403, headers
        assert app.uploads == []

        for headers in (
            {},
            {"Origin": "http://{here}"},
            {"Host": "localhost:1234", "Origin": "http://localhost:1234"},  # a forwarded port
            {"Host": f"[::1]:{app.port}"},
        ):
            assert app.ask(UPLOAD, upload, **headers)[0] == 200, headers
        assert [file.name for file in app.uploads] == ["Doe-0.png"]  # named by their content

        status, answer = app.ask(UPLOAD, files(*[b"%d" % index for index in range(65)]))
        assert (status, answer) == (400, "more than 64 images at once")
        status, _ = app.ask(UPLOAD, files(bytes(20 * 2**20 + 1)))
        assert status == 413
        status, answer = app.ask(UPLOAD, b"", **{"Content-Length": "500000001"})
        assert status == 413
        assert "all uploads, 500 MB" in answer
        status, _ = app.ask("/gradio_api/queue/join", b"", **{"Content-Length": "1000001"})
        assert status == 413
        assert len(app.uploads) == 1
        assert app.ask(UPLOAD, files(*[b"%d" % index for index in range(64)]))[0] == 200
        assert len(app.uploads) == 65

        os.truncate(app.uploads[0], 499_990_000)  # sparse: it takes no space
        status, answer = app.ask(UPLOAD, files(bytes(10_001)))
        assert status == 413
        assert "all uploads, 500 MB" in answer
        assert app.ask("/")[0] == 200
        check_end(app, signal.SIGTERM)
        assert list(app.temporary.iterdir()) == []


def check_end(app: App, how: signal.Signals) -> None:
    """Check that a signal ends an app, and that it removes its folder of uploads."""
    before = {*app.temporary.iterdir()}
    assert app.end(how) == 128 + how
    after = {*app.temporary.iterdir()}
    assert len(before - after) == 1
    assert after < before


def test_uploads_are_removed_by_the_app_or_after_its_end_by_the_next(small, tmp_path):
    temporary = tmp_path / "temporary"
    with running_app(small, temporary) as killed, running_app(small, temporary) as other:
        for app in (killed, other):
            assert app.ask(UPLOAD, files(b"%d" % app.port))[0] == 200
        assert len(killed.uploads) == 2
        assert [folder.stat().st_mode & 0o777 for folder in temporary.iterdir()] == [0o700] * 2
        killed.end(signal.SIGKILL)
        link = temporary / "brainmri-app-mine"
        link.symlink_to(shutil.copytree("docs", tmp_path / "docs"))
        with running_app(small, temporary) as following:
            assert [file.read_bytes() for file in following.uploads] == [b"%d" % other.port]
            assert (tmp_path / "docs/security.md").exists()
            assert following.ask(UPLOAD, files(b"content"))[0] == 200
            assert len(other.uploads) == 2
            check_end(following, signal.SIGHUP)
        assert [file.read_bytes() for file in other.uploads] == [b"%d" % other.port]
        check_end(other, signal.SIGINT)
        assert other.uploads == []
        assert [*temporary.iterdir()] == [link]
