"""A real browser without a window: Chromium, by selenium."""

import shutil
import time
from contextlib import contextmanager

import pytest

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), "chromedriver"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--autoplay-policy=no-user-gesture-required")  # fmt: skip
NEEDED = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and shutil.which(DRIVER)),
        reason="no browser to open pages in: apt-get install chromium chromium-driver",
    ),
]


def needed(test):
    for mark in NEEDED:
        test = mark(test)
    return test


@contextmanager
def opened(*flags):
    """Within: the driver. It logs what pages complain of ("browser") and load ("performance")."""
    selenium = pytest.importorskip("selenium", reason="selenium drives the browser")
    from selenium.webdriver.chrome.service import Service

    options = selenium.webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*FLAGS, *flags):
        options.add_argument(flag)
    driver = selenium.webdriver.Chrome(options, Service(shutil.which(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def requested(driver):
    """The messages of all that was loaded since the last call."""
    lines = (line["message"] for line in driver.get_log("performance"))
    return [line for line in lines if "requestWillBeSent" in line]


def resize(driver, width, height=900):
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def first(driver, selector, text="", shown=True, seconds=20):
    """The first element of these, with this text or label, once it is there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for each in driver.find_elements("css selector", selector):
            said = each.text or each.get_attribute("aria-label") or ""
            if text.lower() in said.lower() and each.is_displayed() >= shown:
                return each
        time.sleep(0.1)
    raise AssertionError(f"no {selector} {text!r}")
