# SPDX-License-Identifier: Apache-2.0
"""Evidence of Intel SGX: the quote of an enclave, by DCAP.

collect    it, in the enclave

Nothing is imported here.
"""
