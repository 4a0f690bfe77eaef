# SPDX-License-Identifier: Apache-2.0
from html.parser import HTMLParser

from imagers.broker.ui.elements import element, table, to_html

HOSTILE = "</td><script>alert(1)</script>&\"'<!--"


class Seen(HTMLParser):
    """What a browser makes of it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, attributes))

    def handle_data(self, data):
        self.texts.append(data)


def html(root):
    data = to_html(root)
    assert data.startswith(b"<!DOCTYPE html>\n")
    return data.decode().partition("\n")[2]


def test_text_and_attributes_cannot_become_markup():
    told = html(element("p", HOSTILE, element("b", HOSTILE), HOSTILE, title=HOSTILE))
    seen = Seen(told)
    assert seen.tags == [("p", [("title", HOSTILE)]), ("b", [])]
    assert seen.texts == [HOSTILE] * 3


def test_children_stand_in_their_order():
    assert html(element("p", "a", "b", element("i", "c"), "d", None, element("br"), "e")) == (
        "<p>ab<i>c</i>d<br>e</p>"
    )


def test_attributes_have_the_names_of_html():
    made = element("a", class_="x", aria_current="page", href=None, for_="y")
    assert html(made) == '<a class="x" aria-current="page" for="y"></a>'


def test_table_without_rows_says_so():
    assert html(table(["a"], [], empty="Nothing.")) == '<p class="empty">Nothing.</p>'


def test_empty_cells_are_seen():
    told = html(table(["a", "b"], [["", element("b")]], empty=""))
    assert "<td>\u2013</td><td><b></b></td>" in told
    assert '<th scope="col">a</th>' in told
