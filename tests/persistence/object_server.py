"""A server that speaks as much of S3's protocol as blobs need, for the contract test.

It stands in for a real one over the real wire: obstore's own client signs, sends, parses and
retries. It can be told to fail.
"""

import re
from email.utils import formatdate
from hashlib import md5
from xml.sax.saxutils import escape

from aiohttp import web

BUCKET = "bucket"


class ObjectServer:
    """Objects of one bucket in memory, served on loopback."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.failing = False
        self.unsigned = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Begin to serve and return the address."""
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        body = await request.read()
        if "AWS4-HMAC-SHA256" not in request.headers.get("Authorization", ""):
            self.unsigned += 1
        if self.failing:
            return web.Response(status=503, text="<Error><Code>SlowDown</Code></Error>")
        bucket, _, key = request.match_info["path"].partition("/")
        assert bucket == BUCKET
        if request.method == "POST" and "delete" in request.query:
            gone = re.findall(r"<Key>([^<]+)</Key>", body.decode())
            for each in gone:
                self.objects.pop(each, None)
            rows = "".join(f"<Deleted><Key>{each}</Key></Deleted>" for each in gone)
            return web.Response(text=f"<DeleteResult>{rows}</DeleteResult>")
        if not key:
            return self._listed(request.query.get("prefix", ""))
        if request.method == "PUT":
            if request.headers.get("If-None-Match") == "*" and key in self.objects:
                return web.Response(
                    status=412, text="<Error><Code>PreconditionFailed</Code></Error>"
                )
            self.objects[key] = body
            return web.Response(headers=_tags(body))
        return self._found(request, key)

    def _found(self, request: web.Request, key: str) -> web.Response:
        held = self.objects.get(key)
        if held is None:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        wanted = request.headers.get("Range", "").removeprefix("bytes=")
        if not wanted:
            return web.Response(body=held, headers=_tags(held))
        first, last = (int(part) for part in wanted.split("-"))
        last = min(last, len(held) - 1)
        shown = {"Content-Range": f"bytes {first}-{last}/{len(held)}"}
        return web.Response(status=206, body=held[first : last + 1], headers=_tags(held) | shown)

    def _listed(self, prefix: str) -> web.Response:
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(held)}</Size>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(_tags(held)['ETag'])}</ETag></Contents>"
            for key, held in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")


def _tags(held: bytes) -> dict[str, str]:
    tag = md5(held, usedforsecurity=False).hexdigest()
    return {"ETag": f'"{tag}"', "Last-Modified": formatdate(0, usegmt=True)}
