# SPDX-License-Identifier: Apache-2.0
"""The page of a trace in a real browser: it needs nobody, and can be read."""

import pytest

from imagers.cli.trace_page import trace_page
from imagers.pull.trace import WAIT, Trace
from imagers.sign.decision import Answer, Explanation, Finding

pytestmark = pytest.mark.timeout(180)
HOSTILE = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture
def page(tmp_path):
    """The file of a pull whose image chose its names with care."""
    trace = Trace()
    for name, layer in (("manifest", None), ("download", 1), (WAIT, 1), ("open", 0)):
        trace.note(name, layer, since=0)
    trace.explanation = Explanation(Finding(Answer.YES, HOSTILE), None)
    trace.key_names = (HOSTILE * 10,)
    path = tmp_path / "trace.html"
    path.write_bytes(trace_page(trace, {"image": HOSTILE}, broker=None, failure=HOSTILE))
    return path.as_uri()


def lightness(color):
    red, green, blue = (int(part) for part in color[color.index("(") + 1 : -1].split(",")[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_page_asks_for_nothing_says_nothing_and_fits(chromium, page, scheme, width):
    chromium.get_log("browser")  # what others left
    chromium.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    chromium.set_window_size(width, 900)
    chromium.get(page)
    assert chromium.get_log("browser") == []  # an answer of its own policy would be here
    assert chromium.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert chromium.title == f"Pull of {HOSTILE}"
    assert HOSTILE in chromium.find_element("tag name", "body").text
    wide, seen = chromium.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= seen
    body = chromium.find_element("tag name", "body")
    front, back = (body.value_of_css_property(one) for one in ("color", "background-color"))
    assert abs(lightness(front) - lightness(back)) > 150
    assert (lightness(back) > 128) == (scheme == "light")
    bars = chromium.find_elements("css selector", "g rect")
    assert bars
    assert all(bar.size["width"] > 0 for bar in bars)
