# SPDX-License-Identifier: Apache-2.0
"""Evidence of NVIDIA GPUs of the Hopper line: the SPDM report of one, and its certificates.

report   its bytes
verify   whether it is genuine, and what it says
collect  it, in the guest
roots    NVIDIA's own certificate

Nothing is imported here.
"""
