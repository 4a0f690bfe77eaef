# SPDX-License-Identifier: Apache-2.0
"""The nouns of the project: frozen values, strict parsers and Protocols. No IO.

Public names live in the modules; this package imports none of them, so that one noun
does not cost the loading of all.
"""
