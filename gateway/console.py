"""The console: one static page that uses the same API as everybody else.

No build step and nothing from elsewhere: the files beside this one are served as they are, under a
policy that lets the browser load nothing from anywhere but here.
"""

from pathlib import Path

from aiohttp import web

from gateway.call import Call, Gateway
from gateway.problems import NOT_FOUND, Problem

FOLDER = Path(__file__).parent / "console"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


async def front_door(gateway: Gateway, call: Call) -> web.Response:
    """Send whoever types the bare address to the console."""
    # Relative, so that it leads there from behind a proxy that puts a path before ours, too.
    return web.Response(status=307, headers={"Location": "console", "Cache-Control": "no-cache"})


async def console_page(gateway: Gateway, call: Call) -> web.Response:
    """Return the page."""
    return _file("index.html")


async def console_file(gateway: Gateway, call: Call) -> web.Response:
    """Return one of the page's files."""
    return _file(call.part("file"))


def _file(name: str) -> web.Response:
    # Chosen among the names in the folder: no path from outside is ever opened.
    known = {path.name: path for path in FOLDER.iterdir() if path.suffix in TYPES}
    path = known.get(name)
    if path is None:
        raise Problem(NOT_FOUND, f"the console has no file {name!r}")
    return web.Response(
        body=path.read_bytes(),
        content_type=TYPES[path.suffix],
        charset="utf-8",
        headers=HEADERS,
    )
