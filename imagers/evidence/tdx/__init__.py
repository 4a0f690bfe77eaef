# SPDX-License-Identifier: Apache-2.0
"""Evidence of Intel TDX: the quote of a guest (TD), and the log of what it measured.

verify     whether it is genuine, and what it says
collect    it, in the guest

Nothing is imported here.
"""
