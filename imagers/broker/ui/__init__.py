# SPDX-License-Identifier: Apache-2.0
"""Pages for people: what a broker knows, to be read in a browser.

    elements   HTML as trees, in which no text can become markup
    login      the cookie of an admin who has shown a token
    views      what is shown, from the same answers that the interface for programs gives
    pages      the endpoint: who may see what

Nothing can be changed here. The pages need no network, and no script to be of use.
"""
