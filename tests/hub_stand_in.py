"""A stand-in for the Hugging Face Hub on this machine: the parts of its HTTP API that uploads and downloads need."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".pack", ".safetensors", ".png")  # go through Git LFS


class Hub:
    """Repositories by id: commits, each with its files by path. `token` is the one that may write."""

    def __init__(self, token="hf_write"):
        self.token, self.repos, self.private, self.lfs, self.asked, self.down = token, {}, {}, {}, [], False

    def commit(self, repo, files):
        hashes = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        name = hashlib.sha1(json.dumps([repo, len(self.repos[repo]), hashes]).encode()).hexdigest()
        self.repos[repo].append((name, files))
        return name

    def at(self, repo, revision):
        commits = self.repos[repo]
        return next((one for one in reversed(commits) if revision in ("main", one[0])), None)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, kind="RepoNotFound"):
        self.reply(404, {"error": kind}, X_Error_Code=kind)

    def content(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do(self):  # noqa: PLR0911 - a route a line
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path))
        body = self.content()
        writer = self.headers.get("Authorization") == f"Bearer {hub.token}"
        if hub.down:
            return self.reply(503, {"error": "down"})
        if self.command in ("POST", "PUT") and not writer and "/upload/" not in path:
            return self.reply(401, {"error": "Invalid credentials"})
        if path == "/api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            payload = json.loads(body)
            repo = f"{payload['organization']}/{payload['name']}"
            if repo in hub.repos:
                return self.reply(409, {"error": "exists", "url": f"{self.base}/{repo}"})
            hub.repos[repo], hub.private[repo] = [], payload.get("visibility") == "private"
            hub.commit(repo, {})
            return self.reply(200, {"url": f"{self.base}/{repo}", "id": repo, "name": repo})
        if match := re.fullmatch(r"/upload/([0-9a-f]{64})", path):
            assert hashlib.sha256(body).hexdigest() == match[1]
            hub.lfs[match[1]] = body
            return self.reply(200)
        if match := re.fullmatch(r"/(.+?/.+?)\.git/info/lfs/objects/batch", path):
            objects = [
                {
                    "oid": one["oid"],
                    "size": one["size"],
                    "actions": {"upload": {"href": f"{self.base}/upload/{one['oid']}"}},
                }
                for one in json.loads(body)["objects"]
            ]
            return self.reply(200, {"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(preupload|commit|revision|tree)/([^/]+))?", path):
            return self.repository(*match.groups(), body, writer)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.file(*match.groups(), writer)
        return self.missing("EntryNotFound")

    do_GET = do_POST = do_PUT = do_HEAD = do

    @property
    def base(self):
        return f"http://{self.headers['Host']}"

    def repository(self, repo, what, revision, body, writer):
        hub = self.hub
        if repo not in hub.repos or (hub.private[repo] and not writer):
            return self.missing()
        commit = hub.at(repo, revision or "main")
        if commit is None:
            return self.missing("RevisionNotFound")
        name, files = commit
        if what == "preupload":
            kinds = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return self.reply(200, {"files": kinds})
        if what == "commit":
            new = dict(files)
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    new[value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    new[value["path"]] = hub.lfs[value["oid"]]
            name = hub.commit(repo, new)
            address = f"{self.base}/{repo}/commit/{name}"
            return self.reply(200, {"commitUrl": address, "commitOid": name, "hookOutput": ""})
        listed = [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in sorted(files.items())
        ]
        if what == "tree":
            assert parse_qs(urlsplit(self.path).query)["recursive"]
            return self.reply(200, listed)
        siblings = [{"rfilename": one["path"]} for one in listed]
        return self.reply(200, {"id": repo, "modelId": repo, "sha": name, "siblings": siblings, "tags": []})

    def file(self, repo, revision, path, writer):
        if repo not in self.hub.repos or (self.hub.private[repo] and not writer):
            return self.missing()
        commit = self.hub.at(repo, revision)
        if commit is None or path not in commit[1]:
            return self.missing("EntryNotFound" if commit else "RevisionNotFound")
        data = commit[1][path]
        etag = hashlib.sha256(data).hexdigest()
        return self.reply(200, data, ETag=f'"{etag}"', X_Repo_Commit=commit[0])


@contextmanager
def serving_hub(hub):
    """The address at which `hub` is served."""
    handler = type("HandlerOfHub", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
