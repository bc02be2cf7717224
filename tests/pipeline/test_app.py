"""The app over HTTP: who may ask, how much may be uploaded, and what stays when it ends."""

import os
import shutil
import signal

from tests.support.app import UPLOAD, App, encode_upload, running_app


def test_app_answers_its_own_page_alone_and_bounds_uploads(small, tmp_path):
    with running_app(small, tmp_path / "temporary") as app:
        upload = encode_upload(b"content")
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

        status, answer = app.ask(UPLOAD, encode_upload(*[b"%d" % index for index in range(65)]))
        assert (status, answer) == (400, "more than 64 images at once")
        status, _ = app.ask(UPLOAD, encode_upload(bytes(20 * 2**20 + 1)))
        assert status == 413
        status, answer = app.ask(UPLOAD, b"", **{"Content-Length": "500000001"})
        assert status == 413
        assert "all uploads, 500 MB" in answer
        status, _ = app.ask("/gradio_api/queue/join", b"", **{"Content-Length": "1000001"})
        assert status == 413
        assert len(app.uploads) == 1
        assert app.ask(UPLOAD, encode_upload(*[b"%d" % index for index in range(64)]))[0] == 200
        assert len(app.uploads) == 65

        os.truncate(app.uploads[0], 499_990_000)  # sparse: it takes no space
        status, answer = app.ask(UPLOAD, encode_upload(bytes(10_001)))
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
            assert app.ask(UPLOAD, encode_upload(b"%d" % app.port))[0] == 200
        assert len(killed.uploads) == 2
        assert [folder.stat().st_mode & 0o777 for folder in temporary.iterdir()] == [0o700] * 2
        killed.end(signal.SIGKILL)
        link = temporary / "brainmri-app-mine"
        link.symlink_to(shutil.copytree("docs", tmp_path / "docs"))
        with running_app(small, temporary) as following:
            assert [file.read_bytes() for file in following.uploads] == [b"%d" % other.port]
            assert (tmp_path / "docs/security.md").exists()
            assert following.ask(UPLOAD, encode_upload(b"content"))[0] == 200
            assert len(other.uploads) == 2
            check_end(following, signal.SIGHUP)
        assert [file.read_bytes() for file in other.uploads] == [b"%d" % other.port]
        check_end(other, signal.SIGINT)
        assert other.uploads == []
        assert [*temporary.iterdir()] == [link]
