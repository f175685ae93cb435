"""Runs roc-validator on a crate without a network. A program of its own environment (envs/validator.txt), not of ours.

    python tests/crate_validator.py CONTEXTS.json CRATE PROFILE SEVERITY

The JSON-LD contexts come from a file, which has the terms of theirs that our crates use; any other request fails.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from requests import Response
from requests.adapters import BaseAdapter
from requests_cache import CachedSession
from urllib3 import HTTPResponse


class Known(BaseAdapter):
    """Answers requests for what is in ``known`` (address -> content)."""

    def __init__(self, known):
        super().__init__()
        self.known = known

    def send(self, request, **_):
        response = Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response.headers["Content-Type"] = "application/ld+json"
        response._content = json.dumps(self.known[request.url]).encode()
        response.raw = HTTPResponse(response._content, status=200, headers=response.headers, preload_content=False)
        return response

    def close(self):
        pass


def main(contexts, crate, profile, severity):
    """Fill the validator's cache, validate, end with its status."""
    known = json.loads(Path(contexts).read_text())
    with TemporaryDirectory() as folder:
        cache = f"{folder}/cache"
        session = CachedSession(cache, backend="sqlite", expire_after=-1)
        session.mount("https://", Known(known))
        for address in known:
            session.get(address)
        session.close()
        command = [
            str(Path(sys.executable).with_name("rocrate-validator")),
            "-y",
            "validate",
            crate,
            "-p",
            profile,
            "-l",
            severity,
        ]
        command += ["--offline", "--cache-path", cache, "--no-paging", "-f", "json", "-o", f"{folder}/found.json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = Path(f"{folder}/found.json")
        sys.stdout.write(found.read_text() if found.is_file() else done.stdout + done.stderr)
        sys.exit(done.returncode)


if __name__ == "__main__":
    main(*sys.argv[1:])
