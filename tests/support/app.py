"""The app in a process of its own, and requests to it."""

import http.client
import json
import os
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

    def predict(self, content: bytes, session: str) -> None:
        """Upload an image, and wait for its prediction, as a page of this session does.

        Raises
        ------
        AssertionError
            If there is none.
        """
        status, answer = self.ask(UPLOAD, encode_upload(content))
        assert status == 200, answer
        (path,) = json.loads(answer)
        _, config = self.ask("/config")
        (function,) = (
            entry["id"]
            for entry in json.loads(config)["dependencies"]
            if entry["targets"][0][1] == "change"
        )
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        request = {"data": [[file]], "fn_index": function, "session_hash": session}
        body = json.dumps(request).encode()
        json_type = {"Content-Type": "application/json"}
        status, answer = self.ask("/gradio_api/queue/join", body, **json_type)
        assert status == 200, answer
        _, events = self.ask(f"/gradio_api/queue/data?session_hash={session}")
        results = [
            json.loads(event.removeprefix("data: "))
            for event in events.splitlines()
            if "process_completed" in event
        ]
        assert [result["success"] for result in results] == [True], events

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


def encode_upload(*contents: bytes) -> bytes:
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
