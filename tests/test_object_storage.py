"""A run whose folder is a bucket: objects appear whole, and cannot be renamed or appended to.

What stands for Google's storage here is a dict that two doors lead to: a file system for etils, and
the part of the web interface that TensorStore uses. Any other request is an error.
"""

import http.server
import itertools
import json
import pathlib
import re
import threading
import urllib.parse

import fsspec
import chex
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from tiny import TinySpiking, one_device, tiny_settings, tiny_task

from pspike_jax.training import fit, load
from pspike_jax.analysis.files import local_folder
from pspike_jax.training.preemption import Preempted, StopSignal


class Bucket(MemoryFileSystem):
    """The door for etils."""

    protocol = ("gcs", "gs")
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("gs://").strip("/")

    def mv(self, *_, **__):
        raise AssertionError("an object cannot be renamed")

    def _open(self, path, mode="rb", **options):
        assert mode in ("rb", "wb"), f"an object cannot be opened as {mode!r}"
        return super()._open(path, mode, **options)


class Door(http.server.BaseHTTPRequestHandler):
    """The door for TensorStore: read an object or a range of it, or write one whole."""

    generations, refused = {}, []

    def do_GET(self):
        match = re.fullmatch(r"/storage/v1/b/(\w+)/o/([^/?]+)\?(alt=media.*)", self.path)
        if match is None:
            return self._refuse()
        name, asked = f"/{match[1]}/{urllib.parse.unquote(match[2])}", match[3]
        if name not in Bucket.store:
            return self._answer(404)
        generation = self.generations.setdefault(name, 1)
        if f"ifGenerationNotMatch={generation}&" in f"{asked}&":
            return self._answer(304)
        data, span = Bucket.store[name].getvalue(), self.headers.get("Range")
        if span is None:
            return self._answer(200, data, generation)
        first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", span).groups()
        first, last = int(first), min(int(last or len(data)), len(data) - 1)
        size = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        return self._answer(206, data[first : last + 1], generation, **size)

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        url = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        match = re.fullmatch(r"/upload/storage/v1/b/(\w+)/o", url.path)
        if match is None or query.get("uploadType") != "media":
            return self._refuse()
        name = f"/{match[1]}/{query['name']}"
        current = self.generations.get(name, 0) if name in Bucket.store else 0
        if int(query.get("ifGenerationMatch", current)) != current:
            return self._answer(412)
        Bucket.store[name] = MemoryFile(Bucket(), name, data)
        self.generations[name] = current + 1
        answer = {"name": query["name"], "generation": str(current + 1), "size": str(len(data))}
        return self._answer(200, json.dumps(answer).encode(), current + 1)

    def _refuse(self):
        self.refused.append(f"{self.command} {self.path}")
        self._answer(501)

    do_PUT = do_PATCH = do_DELETE = _refuse

    def _answer(self, status, data=b"", generation=0, **more):
        self.send_response(status)
        headers = {"Content-Length": len(data), "X-Goog-Generation": generation} | more
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def bucket():
    """The path of a bucket."""
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    with pytest.MonkeyPatch.context() as patch:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "nobody's")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield epath.Path("gs://bucket")
        server.shutdown()
        server.server_close()


def run(workdir):
    return fit(
        TinySpiking(), tiny_task(), tiny_settings(steps=16), workdir=workdir, mesh=one_device(),
        progress=False,
    )


def test_fit_in_a_bucket_stops_resumes_and_ends_as_in_a_folder(bucket, tmp_path, monkeypatch):
    calls = itertools.count(1)
    with monkeypatch.context() as patch, pytest.raises(Preempted):
        patch.setattr(StopSignal, "requested", lambda _: next(calls) == 10)
        run(bucket / "run")
    found, expected = run(bucket / "run"), run(tmp_path)
    chex.assert_trees_all_equal(found.variables, expected.variables)
    for ours, theirs in zip(found.history, expected.history, strict=True):
        assert ours["train/loss"] == theirs["train/loss"]
    again = load(
        TinySpiking(), tiny_task(), tiny_settings(steps=16), workdir=bucket / "run",
        mesh=one_device(),
    )
    chex.assert_trees_all_equal(again.variables, expected.variables)
    assert Door.refused == []
    kept = {name.split("/")[4] for name in Bucket.store if name.startswith("/bucket/run/check")}
    assert kept == {path.name for path in (tmp_path / "checkpoints").iterdir()}


def test_fit_refuses_a_storage_that_checkpoints_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="workdir is s3://bucket/run, expected a folder or gs://"):
        run("s3://bucket/run")
    assert not list(tmp_path.iterdir())


def test_local_folder_copies_what_is_written_to_a_bucket(bucket):
    with local_folder(bucket / "files") as folder:
        folder = pathlib.Path(folder)
        (folder / "report.json").write_text("{}")
        (folder / "profile" / "host").mkdir(parents=True)
        (folder / "profile" / "host" / "trace").write_bytes(b"\x00\xff")
    assert (bucket / "files" / "report.json").read_text() == "{}"
    assert (bucket / "files" / "profile" / "host" / "trace").read_bytes() == b"\x00\xff"
