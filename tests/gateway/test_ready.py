"""An answer of ready bytes says what the framework's would, whatever the connection is like."""

import asyncio
import json
from email.utils import parsedate_to_datetime

import pytest

from gateway.ready import JOINED_MAX, Heads
from tests.gateway.hand import Market, listed, market, open_shops, quoted

PATH = "/api/v1/products/A-1/recommendation"


async def asked(place: Market, request: str) -> tuple[str, dict[str, str], bytes, bool]:
    """Send one request as bytes; return status line, headers, body, and whether we were cut off."""
    port = place.client.server.port
    assert port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = place.headers("acme")["Authorization"]
    writer.write(request.replace("KEY", key).encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    length = 0 if request.startswith("HEAD") else int(headers["content-length"])
    body = await reader.readexactly(length)
    writer.write_eof()
    cut = headers.get("connection") == "close" or status.startswith("HTTP/1.0")
    writer.close()
    return status, headers, body, cut


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("GET {} HTTP/1.1", ""),
        ("GET {} HTTP/1.1", "Connection: close\r\n"),
        ("GET {} HTTP/1.0", ""),
    ],
)
async def test_a_price_is_the_same_on_every_kind_of_connection(line: str, more: str) -> None:
    async with market() as place:
        await open_shops(place)
        _, expected = await place.get(PATH)
        words = line.format(PATH)
        request = f"{words}\r\nHost: here\r\nAuthorization: KEY\r\n{more}\r\n"
        status, headers, body, cut = await asked(place, request)
        assert status.endswith("200 OK")
        assert json.loads(body) == expected
        assert headers["content-type"] == "application/json"
        assert parsedate_to_datetime(headers["date"])
        assert cut is (more != "" or "1.0" in line)


async def test_head_gives_the_length_and_no_body() -> None:
    async with market() as place:
        await open_shops(place)
        request = f"HEAD {PATH} HTTP/1.1\r\nHost: here\r\nAuthorization: KEY\r\n\r\n"
        status, headers, _, _ = await asked(place, request)
        assert status.endswith("200 OK")
        assert int(headers["content-length"]) > 300


async def test_many_answers_follow_each_other_on_one_connection() -> None:
    """The framework must not think that an answer which it did not make is still to come."""
    async with market() as place:
        await open_shops(place)
        for _ in range(20):
            status, body = await place.get(PATH)
            assert (status, body["sku"]) == (200, "A-1")


async def test_a_batch_beyond_one_write_is_whole_and_in_order() -> None:
    async with market() as place:
        await open_shops(place)
        names = [f"N-{number}" for number in range(200)]
        await place.owner("acme").decide(
            catalogue=[listed("acme", "shop", name) for name in names],
            quotes=[quoted("acme", "shop", name, 1000 + at) for at, name in enumerate(names)],
        )
        await place.caught_up()
        ids = [*names[::-1], "unknown", names[3]]
        response = await place.post("/api/v1/recommendations:batchGet", {"ids": ids})
        status, body = response
        assert status == 200
        found = [each["sku"] for each in body["recommendations"]]
        assert found == [*names[::-1], names[3]]
        assert body["not_found"] == ["unknown"]
        assert len(json.dumps(body)) > JOINED_MAX
        _, nothing = await place.post("/api/v1/recommendations:batchGet", {"ids": ["unknown"]})
        assert (nothing["recommendations"], nothing["not_found"]) == ([], ["unknown"])


def test_a_head_changes_with_the_second_and_the_length() -> None:
    heads = Heads()
    first = heads.head(5, 1_700_000_000_000)
    assert first.endswith(b"Content-Length: 5\r\n\r\n")
    assert heads.head(5, 1_700_000_000_999) == first
    assert b"22:13:21 GMT" in heads.head(5, 1_700_000_001_000)
    assert heads.head(6, 1_700_000_001_000) != heads.head(5, 1_700_000_001_000)
