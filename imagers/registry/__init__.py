# SPDX-License-Identifier: Apache-2.0
"""Registries over `imagers.net`: who is logged in, one image as source or as sink."""
