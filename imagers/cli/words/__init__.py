# SPDX-License-Identifier: Apache-2.0
"""Words below a verb that have a help of their own: a module is named VERB_WORD."""
