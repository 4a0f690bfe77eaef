# SPDX-License-Identifier: Apache-2.0
"""Prove to a key broker what this machine is, and fetch secrets from it.

    messages    the four messages of the protocol, both directions, and the report data
    jwe         the encrypted answers, both directions
    tee_key     the key pair of a guest
    resources   names of secrets: `kbs:///repository/type/tag`
    client      BrokerClient: one handshake, any number of secrets
    admin       BrokerAdmin: put, list, delete and bind them; policy and audit log
    tenants     TenantAdmin: tenants, their repositories and admin keys
    wire        requests and error answers that the two share

What is named in `__all__` is imported when it is first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.kbs.admin import BrokerAdmin
    from imagers.kbs.client import BrokerClient
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "admin": ("BrokerAdmin",),
            "client": ("BrokerClient",),
        },
    )

__all__ = [
    "BrokerAdmin",
    "BrokerClient",
]
