# SPDX-License-Identifier: Apache-2.0
"""Transports: what follows the colon of a name, and what is read and written there.

`transport` says what one is and has the table of them. Nothing is imported here.
"""
