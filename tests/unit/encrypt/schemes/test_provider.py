# SPDX-License-Identifier: Apache-2.0
import base64

import pytest

from imagers.encrypt.schemes.provider import TIMEOUT_S, ProviderUnwrapper, ProviderWrapper
from imagers.encrypt.schemes.providers.config import GRPCProvider, ProgramProvider
from imagers.errors import FormatError, ProviderFailed
from imagers.model.keys import NotMine, SecretKey, UnwrapContext, WrapContext, WrappedKey

OPTIONS = SecretKey(b"private options")
CONTEXT = UnwrapContext("layer 1 of 1", None)


def parameters(question, side):
    found = question[side]["ec" if side == "keywrapparams" else "dc"]["Parameters"]
    return {name: [base64.b64decode(one) for one in values] for name, values in found.items()}


def test_program_wraps_and_unwraps_with_its_own_parameters_only(turning):
    command, questions = turning
    config = ProgramProvider(*command)
    wrapper = ProviderWrapper("agent", config, ["a=1", "b=2"])
    packet = wrapper.wrap(OPTIONS, WrapContext("layer 1 of 1"))
    assert packet == b"snoitpo etavirp"
    unwrapper = ProviderUnwrapper("agent", config, "secret")
    assert unwrapper.unwrap(WrappedKey("provider.agent", packet), CONTEXT) == OPTIONS
    first, second = questions()
    assert parameters(first, "keywrapparams") == {"agent": [b"a=1", b"b=2"]}
    assert parameters(second, "keyunwrapparams") == {"agent": [b"secret"]}
    assert first["keyunwrapparams"] == {"dc": None, "annotation": None}
    assert second["keywrapparams"] == {"ec": None, "optsdata": None}


def test_service_wraps_and_unwraps(serve):
    service, address = serve()
    config = GRPCProvider(address)
    packet = ProviderWrapper("agent", config).wrap(OPTIONS, WrapContext("layer 1 of 1"))
    unwrapper = ProviderUnwrapper("agent", config)
    assert unwrapper.unwrap(WrappedKey("provider.agent", packet), CONTEXT) == OPTIONS
    assert [question["op"] for question in service.questions] == ["keywrap", "keyunwrap"]


def test_unwrap_of_another_scheme_is_not_mine_and_starts_nothing():
    unwrapper = ProviderUnwrapper("agent", ProgramProvider("/nonexistent"))
    for scheme in ("jwe", "provider.other", "provider.agent2", "agent"):
        with pytest.raises(NotMine):
            unwrapper.unwrap(WrappedKey(scheme, b"x"), CONTEXT)


def test_failures_name_layer_and_provider(program):
    config = ProgramProvider(*program("print('{}')"))
    with pytest.raises(ProviderFailed, match="layer 1 of 1: key provider 'agent': expected 1 to"):
        ProviderWrapper("agent", config).wrap(OPTIONS, WrapContext("layer 1 of 1"))
    with pytest.raises(ProviderFailed, match="layer 1 of 1: key provider 'agent': expected 1 to"):
        ProviderUnwrapper("agent", config).unwrap(WrappedKey("provider.agent", b"x"), CONTEXT)


def test_names_and_limits():
    config = ProgramProvider("x")
    assert ProviderWrapper("agent", config, ["secret"]).recipients == ("provider:agent",)
    assert ProviderWrapper("agent", config).scheme == "provider.agent"
    assert ProviderUnwrapper("agent", config, "secret").description == "key provider 'agent'"
    assert TIMEOUT_S == 60
    with pytest.raises(FormatError, match="expected a provider name"):
        ProviderWrapper("a,b", config)
