"""The console in a real browser: prices move, a listing is explained, a click becomes a command."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Page, async_playwright, expect

from engine.decided import CatalogueChange, State
from engine.deltas import PriceApproved
from tests.gateway.hand import COMMAND, Market, market, open_shops, outcome, quoted

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@asynccontextmanager
async def page_of(place: Market) -> AsyncIterator[tuple[Page, list[str]]]:
    """Open the console and note everything that it complains about."""
    assert Path(CHROMIUM).exists(), "install Debian's chromium: apt-get install chromium"
    async with async_playwright() as browsers:
        browser = await browsers.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda fault: complaints.append(str(fault)))
        await page.goto(str(place.client.make_url("/console")))
        yield page, complaints
        await browser.close()


async def test_a_person_opens_the_console_sees_prices_move_and_approves_one() -> None:
    async with market() as place:
        await open_shops(place)
        owner = place.owner("acme")
        async with page_of(place) as (page, complaints):
            await page.fill("#key", "rp_live_" + "A" * 49)
            await page.press("#key", "Enter")
            await expect(page.locator("#door-error")).to_have_text("this key is not valid")
            complaints.clear()  # the browser notes the 401, as it should

            await page.fill("#key", place.keys["acme"])
            await page.press("#key", "Enter")
            await expect(page.locator("#rows tr")).to_have_count(4)
            await expect(page.locator("#link")).to_have_text("live")
            await expect(page.locator("#shards")).to_contain_text("shard 1 live")

            await page.get_by_role("button", name="A-1").last.click()
            await expect(page.locator("#detail-title")).to_have_text("A-1 · Juice")
            await expect(page.locator("#why")).to_contain_text("19.99 EUR is in force")
            await expect(page.locator("#chart .line-price")).to_have_attribute("d", lines())

            place.clock.pass_ms(1000)
            await owner.decide(quotes=[quoted("acme", "shop", "A-1", 1850)])
            row = page.locator("#rows tr", has_text="A-1").filter(has_text="shop")
            await expect(row).to_contain_text("18.50▼")
            await expect(page.locator("#why")).to_contain_text("18.50 EUR is in force")
            await expect(page.locator("#chart-title")).to_contain_text("2 decisions")

            await page.fill("#search", "bread")
            await expect(page.locator("#rows tr")).to_have_count(1)
            await page.get_by_role("button", name="A-2").click()
            await page.get_by_role("button", name="Approve 16.00").click()
            async with asyncio.timeout(10):
                while not (given := await owner.commands()):
                    await asyncio.sleep(0.01)
            [(_, delta)] = given
            assert isinstance(delta, PriceApproved)
            await owner.decide(
                quotes=[quoted("acme", "shop", "A-2", 1600, state=State.LIVE)],
                outcomes=[outcome(delta, "done", price_minor=1600)],
            )
            await expect(page.locator("#action-result")).to_have_text("Done.")
            await expect(page.locator("#detail-state")).to_have_text("live")

            tripped = CatalogueChange(COMMAND, "breaker", "acme", {"reasons": ["3 % moved"]})
            await owner.decide(catalogue=[tripped])
            await expect(page.locator("#alarm")).to_contain_text("3 % moved", timeout=10_000)
            await expect(page.get_by_role("button", name="Resume publishing")).to_be_visible()
            assert await page.evaluate("sessionStorage.length") == 2
            assert await page.evaluate("localStorage.length") == 0
            assert complaints == []


async def test_what_is_old_does_not_look_like_now() -> None:
    """Neither while a shard is silent nor while the gateway itself is."""
    async with market() as place:
        await open_shops(place)
        async with page_of(place) as (page, _):
            await page.fill("#key", place.keys["acme"])
            await page.press("#key", "Enter")
            await expect(page.locator("#mode")).to_have_text("live")
            place.clock.pass_ms(2001)
            old = re.compile("live when last heard of, 1/15/2027")
            await expect(page.locator("#mode")).to_have_text(old, timeout=10_000)
            await expect(page.locator("#mode")).to_have_class("badge stale")
            await place.owner("acme").decide()
            await expect(page.locator("#mode")).to_have_text("live", timeout=10_000)
            await page.route("**/publishing*", lambda route: route.abort())
            await expect(page.locator("#mode")).to_have_text(
                "mode unknown: no answer", timeout=10_000
            )


def lines() -> re.Pattern[str]:
    """Match the path of a line that was drawn."""
    return re.compile(r"^M[\d.]+ [\d.]+H")


FREE_PX = """input => {
  const style = getComputedStyle(input), pen = document.createElement("canvas").getContext("2d");
  pen.font = style.font;
  const sides = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
  return input.clientWidth - sides - pen.measureText(input.placeholder).width;
}"""
"""How much room a field has beside its placeholder."""


async def test_nothing_is_cut_off_on_a_small_laptop() -> None:
    async with market() as place:
        await open_shops(place)
        async with page_of(place) as (page, _):
            await page.set_viewport_size({"width": 1280, "height": 720})
            await page.fill("#key", place.keys["acme"])
            await page.press("#key", "Enter")
            await expect(page.locator("#rows tr")).to_have_count(4)
            assert await page.locator("#search").evaluate(FREE_PX) >= 0
            width = "[document.documentElement.scrollWidth, innerWidth]"
            assert await page.evaluate(width) == [1280, 1280]
            for select in ("#channel", "#category", "#state", "#order"):
                await expect(page.locator(select)).to_be_in_viewport(ratio=1)
