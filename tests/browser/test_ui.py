# SPDX-License-Identifier: Apache-2.0
"""The pages of a broker in a real browser, by what people want of them."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from imagers.errors import KeyRefused
from imagers.model.digest import digest_of
from imagers.testing.broker import EmbeddedBroker

pytestmark = pytest.mark.timeout(180)
KEY, OTHER = "kbs:///default/app/key", "kbs:///default/app/other"
SIZES = {"wide": (1200, 900), "of a telephone": (360, 700)}


@pytest.fixture(scope="module")
def broker():
    """One at which a guest got one secret, and not another."""
    with EmbeddedBroker() as one:
        one.put(KEY, b"a very secret key", image=digest_of(b"image"))
        one.put(OTHER, b"a very secret key", image=digest_of(b"other"))
        with one.client() as guest:
            guest.get(KEY, manifest_digest=digest_of(b"image")).close()
            with pytest.raises(KeyRefused):
                guest.get(OTHER, manifest_digest=digest_of(b"image"))
        yield one


@pytest.fixture
def browser(chromium, broker):
    """A browser in which an admin has just logged in."""
    chromium.set_window_size(*SIZES["wide"])
    chromium.get(f"{broker.url}/ui")
    chromium.delete_all_cookies()
    chromium.get(f"{broker.url}/ui")
    chromium.find_element(By.ID, "token").send_keys(broker.admin.make_token())
    chromium.find_element(By.XPATH, "//button[text()='log in']").click()
    chromium.find_element(By.XPATH, "//h1[text()='Overview']")
    yield chromium
    said = [one for one in chromium.get_log("browser") if "favicon" not in one["message"]]
    assert said == []  # nothing of the pages was refused by their own policy


def text(browser):
    return browser.find_element(By.TAG_NAME, "main").text


def test_why_was_this_guest_refused_is_one_click_away(browser):
    browser.find_element(By.CSS_SELECTOR, "h2 + .wide tbody a").click()
    browser.find_element(By.XPATH, "//h1[text()='Why it was refused']")
    told = text(browser)
    assert "resource: default/app/other" in told
    assert str(digest_of(b"image")) in told
    reason = browser.find_element(By.CSS_SELECTOR, ".reason").text
    assert "bound-image" in reason


def test_why_was_this_guest_refused_is_two_clicks_away_from_the_guests(browser):
    browser.get(browser.current_url + "/guests")
    browser.find_element(By.CSS_SELECTOR, "tbody a").click()
    browser.find_element(By.XPATH, "//tr[td/span[text()='refused']]//a").click()
    browser.find_element(By.XPATH, "//h1[text()='Why it was refused']")
    assert browser.find_element(By.CSS_SELECTOR, ".reason").is_displayed()


def test_secrets_are_listed_and_never_shown(browser):
    browser.find_element(By.LINK_TEXT, "Resources").click()
    browser.find_element(By.LINK_TEXT, "default/app/key").click()
    assert str(digest_of(b"image")) in text(browser)
    assert "a very secret key" not in browser.page_source


def test_rows_are_filtered_from_the_keyboard(browser):
    browser.find_element(By.LINK_TEXT, "Resources").click()
    field = browser.find_element(By.ID, "filter")
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys("/")
    assert browser.switch_to.active_element == field
    field.send_keys("OTHER")
    rows = browser.find_elements(By.CSS_SELECTOR, "tbody tr")
    assert [row.text for row in rows if row.is_displayed()] == ["default/app/other"]


def test_all_is_reached_by_the_tabulator(browser):
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "to the content"
    names = []
    for _ in range(8):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        names.append(browser.switch_to.active_element.text)
    assert names[:3] == ["Overview", "Attempts", "Guests"]
    assert any(name.startswith("log out") for name in names)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(browser, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.refresh()
    body = browser.find_element(By.TAG_NAME, "body")
    front, back = (body.value_of_css_property(one) for one in ("color", "background-color"))

    def lightness(color):
        red, green, blue = (int(part) for part in color[color.index("(") + 1 : -1].split(",")[:3])
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert abs(lightness(front) - lightness(back)) > 150
    assert (lightness(back) > 128) == (scheme == "light")


@pytest.mark.parametrize("size", SIZES)
def test_no_page_is_wider_than_its_window(browser, size):
    browser.set_window_size(*SIZES[size])
    for link in (
        "Overview",
        "Attempts",
        "Guests",
        "Images",
        "Resources",
        "Policies",
        "Reference values",
    ):
        browser.find_element(By.LINK_TEXT, link).click()
        wide, seen = browser.execute_script(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= seen, link


def test_who_logs_out_sees_nothing_more(browser, broker):
    browser.find_element(By.XPATH, "//button[starts-with(text(), 'log out')]").click()
    browser.find_element(By.ID, "token")
    browser.get(f"{broker.url}/ui/resources")
    assert "default/app" not in browser.page_source


def test_pages_are_of_use_without_scripts(browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.find_element(By.LINK_TEXT, "Resources").click()
        assert "default/app/key" in text(browser)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
