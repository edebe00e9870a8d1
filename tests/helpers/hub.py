"""A model hub on this machine: repositories in memory, for reading and for writing."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Repository = dict[str, dict[str, bytes]]  # for each revision, the content of each file


class Hub:
    """What the hub has, and the requests that it has answered."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.address = ""

    def add(self, name: str, files: dict[str, bytes], revision: str = "main") -> None:
        self.repositories.setdefault(name, {})[revision] = files

    def downloaded(self) -> set[str]:
        """Returns the names of the files whose content was sent."""
        return {path.rpartition("/")[2] for path in self.requests if path.startswith("GET") and "/resolve/" in path}


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_) -> None:
        pass

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(self, value: object) -> None:
        self.answer(json.dumps(value).encode(), Content_Type="application/json")

    def respond(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if self.headers.get("Transfer-Encoding") != "chunked" else self.chunks()
        parts = [
            unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")
        ]  # "/" in a revision is quoted
        if self.command == "POST":
            return self.write(parts, body)
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        rest = parts[4:] if parts[0] == "api" else parts[2:]
        revision, file = self.revision(name, rest)
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self.answer(b"", 404, X_Error_Code="RepoNotFound")
        commits = {commit_of(files): files for files in repository.values()}
        files = repository.get(revision, commits.get(revision))
        if files is None:
            return self.answer(b"", 404, X_Error_Code="RevisionNotFound")
        if parts[0] != "api":
            if file not in files:
                return self.answer(b"", 404, X_Error_Code="EntryNotFound")
            digest = hashlib.sha256(files[file]).hexdigest()
            return self.answer(files[file], ETag=f'"{digest}"', X_Repo_Commit=commit_of(files))
        if rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": f, "size": len(content), "oid": "0" * 40} for f, content in files.items()
            ]
            return self.answer_json(entries)
        siblings = [{"rfilename": file} for file in files]
        return self.answer_json({"id": name, "modelId": name, "sha": commit_of(files), "siblings": siblings})

    def revision(self, name: str, rest: list[str]) -> tuple[str, str]:
        """Returns the revision and the file of a path such as revision/main or resolve/main/config.json."""
        if len(rest) < 2:
            return "main", ""
        if rest[0] == "resolve":
            return rest[1], "/".join(rest[2:])
        return "/".join(rest[1:]), ""

    def chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def write(self, parts: list[str], body: bytes) -> None:
        """Creates repositories and branches, and commits files."""
        values = [json.loads(line) for line in body.splitlines()] if body else []
        if parts == ["api", "repos", "create"]:
            name = "/".join(filter(None, [values[0].get("organization"), values[0]["name"]]))
            self.hub.repositories.setdefault(name, {"main": {}})
            return self.answer_json({"url": f"{self.hub.address}/{name}"})
        if parts == ["api", "validate-yaml"]:
            return self.answer_json({"errors": [], "warnings": []})
        name, revision = "/".join(parts[2:4]), "/".join(parts[5:])
        repository = self.hub.repositories[name]
        if parts[4] == "branch":
            repository[revision] = dict(repository["main"])
            return self.answer_json({})
        if parts[4] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in values[0]["files"]
            ]
            return self.answer_json({"files": files})
        for value in values:  # a commit
            if value["key"] == "file":
                repository[revision][value["value"]["path"]] = base64.b64decode(value["value"]["content"])
        commit = commit_of(repository[revision])
        return self.answer_json(
            {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.address}/{name}/commit/{commit}"}
        )

    do_GET = do_HEAD = do_POST = respond


@contextmanager
def serve() -> Iterator[Hub]:
    """Serves a hub at a free port of the loopback address."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
