# SPDX-License-Identifier: Apache-2.0
"""Who gets a secret: policies, and what decides by them.

    inputs     what a policy sees
    rego/      policies in Rego
    table      the simple form: allow and deny rules, the first that matches decides

This package imports none of its modules.
"""
