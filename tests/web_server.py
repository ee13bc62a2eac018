"""A web server on this machine that serves small files, and misbehaves when it is told to; for the tests."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web:
    """Serves ``files`` by name. Each request takes the next of ``plan``, or is answered properly when that is empty.

    whole: all of it, whatever was asked for        break N: N bytes of what was asked for, then the connection is cut
    status N: only that status                      claim N: as if the file had N bytes
    endless: more than was asked for, no length     shifted: another part than was asked for
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.plan, self.asked = files, [], []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handler(web) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name, ranged = self.path.rpartition("/")[2], self.headers.get("Range")
                web.asked.append((name, ranged))
                doing, _, amount = (web.plan.pop(0) if web.plan else "properly").partition(" ")
                content = web.files.get(name)
                if doing == "status" or content is None:
                    self.send_error(int(amount or 404))
                    return
                found = re.fullmatch(r"bytes=(\d+)-", ranged or "")
                start = int(found[1]) if found and doing not in ("whole", "endless", "claim") else 0
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                total = int(amount) if doing == "claim" else len(content)
                begin = start + 1 if doing == "shifted" else start
                if start:
                    self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{total}")
                if doing != "endless":
                    self.send_header("Content-Length", str(total - start))
                self.end_headers()
                body = content[start:]
                if doing == "endless":
                    body += b"and more"
                self.wfile.write(body[: int(amount)] if doing == "break" else body)
                self.close_connection = True

            def log_message(self, *_: object) -> None: ...

        return Handler
