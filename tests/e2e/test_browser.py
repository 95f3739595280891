"""Dagster's page as a person sees it, in a real browser: a backfill is launched, waited for, and looked at.

The screenshots stay in the test's folder; `make screenshots` copies them to docs/img.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page as BrowserPage
from playwright.sync_api import expect, sync_playwright

from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.demo.landing import land
from lakehouse_pipeline.demo.run import RAW, TABLE, demo_lakehouse
from lakehouse_pipeline.hours import parse_range
from lakehouse_pipeline.iceberg.hourly import store_of
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.status.picture import table_status
from tests.e2e.page import dagster_dev

FIRST = "2013-01-01-10:00"
HOURS = f"{FIRST}...2013-01-02-09:00"
UNREADABLE = ("2013/01/01/15", "2013/01/02/00")
WITHIN_S = 240.0


@pytest.fixture
def flights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lakehouse]:
    """Give the demo's lakehouse on Sail, with its S3 server and REST catalog; two of its raw files are no gzip."""
    monkeypatch.chdir(tmp_path)
    with demo_lakehouse() as lakehouse:
        files = store_of(lakehouse.catalog)
        land(files, RAW, parse_range(HOURS))
        for hour in UNREADABLE:
            files.put(f"{RAW}/flights/{hour}.jsonl.gz", b"no gzip")
        spec = lakehouse.spec(TABLE).file
        lakehouse.file.write_text(lakehouse.file.read_text().replace("local[*]", "sail"))
        spec.write_text(f"{spec.read_text()}accepts: [integer_overflow]\n")
        yield lakehouse


@pytest.fixture
def browser() -> Iterator[BrowserPage]:
    """Give a page of Debian's Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "Chromium is missing: apt-get install chromium"
    with sync_playwright() as playwright:
        # Root has no sandbox there; it sees what this test serves and nothing else.
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started.new_page(viewport={"width": 1400, "height": 900})
        started.close()


def test_a_backfill_from_the_page(flights: Lakehouse, browser: BrowserPage, tmp_path: Path) -> None:
    """What is clicked runs: the partitions show it, the plots draw its figures, and the health asset its picture."""
    shots = tmp_path / "screenshots"
    with dagster_dev(flights.folder) as page:
        browser.goto(f"{page.url}/assets/flights?view=partitions")
        browser.get_by_role("button", name="Materialize").click()
        dialog = browser.get_by_role("dialog")
        dialog.get_by_role("textbox").fill(f"[{HOURS}]")
        dialog.get_by_role("textbox").press("Enter")
        expect(dialog.get_by_text("24 partitions").first).to_be_visible()
        dialog.get_by_role("button", name="Launch backfill").click()
        expect(dialog).to_have_count(0)

        until = time.monotonic() + WITHIN_S
        while not browser.get_by_text("Materialized (22)").count() or not browser.get_by_text("Failed (2)").count():
            assert time.monotonic() < until, browser.inner_text("body")
            time.sleep(3)
            browser.goto(f"{page.url}/assets/flights?view=partitions&partition={FIRST}")
            browser.get_by_text("Missing (").wait_for()
        browser.get_by_text("dagster/row_count").wait_for()
        browser.screenshot(path=shots / "partitions.png")

        browser.goto(f"{page.url}/assets/flights?view=overview")
        browser.get_by_role("button", name="Plots").click()
        # By partition the page asks for the newest before now, whatever the table's end (Dagster 1.13.27).
        browser.locator("button", has_text="Events").last.click()
        browser.get_by_text("dagster/row_count").scroll_into_view_if_needed()
        expect(browser.locator("canvas").first).to_be_visible()
        browser.wait_for_timeout(1000)  # they are drawn with a movement
        browser.screenshot(path=shots / "plots.png")

        browser.goto(f"{page.url}/assets/flights_health")
        browser.get_by_text("[Show Markdown]").first.click()
        picture = browser.get_by_role("dialog").locator("img")
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.naturalWidth") > 500  # it is decoded, not only named
        expect(browser.get_by_role("dialog").get_by_text("broken")).to_be_visible()
        browser.screenshot(path=shots / "health.png")

    spec = flights.spec(TABLE)
    counts = table_status(spec, Warehouse.open(flights.catalog).find(spec), parse_range(HOURS)).counts
    assert counts == {"committed": 22, "failed": 2}
    assert {shot.name for shot in shots.iterdir()} == {"partitions.png", "plots.png", "health.png"}
