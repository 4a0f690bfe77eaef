# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from imagers.broker.policy.rego import engine as module
from imagers.broker.policy.rego.engine import Appraised, Decision, PolicyEngine, RegoEngine
from imagers.errors import FormatError
from tests.real_evidence import real_file

HEAD = "package policy\nimport rego.v1\ndefault allow := false\n"
YES = HEAD + "allow if input.a == 1\n"
LOOP = HEAD + (
    "l := numbers.range(1, 3000)\n"
    "allow if {\n  input.a\n  count([1 | some a in l; some b in l; a * b == 7]) > 9\n}\n"
)
REQUEST = {"plugin": "resource", "resource-path": ["default", "key", "1"], "query": {}}
LARGE = f'x := "{"x" * 60_000}"\n'
SPENT = ("crash", "processor", "slow")  # which of the bounds is first is the machine's
UNKNOWN = {"executables": 33, "hardware": 97, "configuration": 36}


def run(work, **options):
    """What a coroutine function gives that is handed an engine; no process may stay behind."""

    async def all_of_it():
        engine: PolicyEngine = RegoEngine(**options)
        try:
            return await work(engine)
        finally:
            processes = engine.processes
            await engine.close()
            assert not any(os.path.exists(f"/proc/{one}") for one in processes)  # noqa: ASYNC240
            await engine.close()

    return asyncio.run(all_of_it())


def decide(text, input=None, *, tenant="default", data=REQUEST):  # noqa: A002
    return run(lambda engine: engine.decide(tenant, text, input=input or {}, data=data))


def appraise(text, input=None, references=None):  # noqa: A002
    return run(
        lambda engine: engine.appraise(
            "default", text, input=input or {}, references=references or {}
        )
    )


def check(text):
    return run(lambda engine: engine.check(text))


def test_allow_has_to_be_exactly_true():
    assert decide(YES, {"a": 1}) == Decision(allow=True)
    assert decide(YES, {"a": 2}) == Decision(allow=False)
    for value in ("1", '"true"', "[true]", "{true}", '{"a": true}', "null", "false"):
        text = f"package policy\nallow := {value}\n"
        assert decide(text) == Decision(allow=False)
    assert decide("package policy\nallow contains true\n") == Decision(allow=False)


def test_rule_and_reason_are_told():
    text = HEAD + 'rule := "r"\nreason := sprintf("%s is no 1", [input.a]) if not allow\n'
    assert decide(text, {"a": "x"}) == Decision(allow=False, rule="r", reason="x is no 1")


def test_rule_and_reason_are_one_bounded_line():
    text = HEAD + "rule := input.a\nreason := input.a\n"
    told = decide(text, {"a": "\n\x1b[31m" + "x" * 1000})
    assert told.rule == "??[31m" + "x" * 58
    assert len(told.reason) == 512
    assert decide(text, {"a": 1}) == Decision(allow=False)


def test_the_loop_of_the_broker_is_as_good_as_that_of_python():
    async def work():
        engine = RegoEngine()
        told = await asyncio.gather(
            *(engine.decide("a", YES, input={"a": one}, data=REQUEST) for one in (1, 2, 1))
        )
        crash = await engine.decide("a", HOSTILE["a range"][0], input={"a": 1}, data=REQUEST)
        await engine.close()
        return [one.allow for one in told], crash.fault in SPENT

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(work()) == ([True, False, True], True)


def test_the_request_is_seen_in_data_and_what_is_ours_below_imagers():
    text = HEAD + (
        'allow if {\n  data.plugin == "resource"\n  data["resource-path"][1] == "key"\n'
        '  count(data.query) == 0\n  input.imagers.image == "i"\n'
        "  input.imagers.request.plugin == data.plugin\n}\n"
    )
    assert decide(text, {"imagers": {"image": "i"}}).allow
    assert not decide(text, {"imagers": {"image": "i"}}, data=REQUEST | {"plugin": "x"}).allow
    assert not decide(text, {}).allow


def test_a_guest_cannot_speak_for_the_request():
    text = HEAD + 'allow if data.plugin == "other"\n'
    assert not decide(text, {"imagers": {"request": {"plugin": "other"}}}).allow


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("package policy\n", "expected a rule 'allow'", ""),
        (HEAD + "allow if {\n", "'{' is not closed", "line 4"),
        (HEAD + "allow if nope(1)\n", "there is no function 'nope'", "line 4"),
        (HEAD + "allow := 1 := 2\n", "Syntax error", "line 3"),
        (HEAD + "allow if f(1)\nf(x) := f(x + 1)\n", "Recursion detected", ""),
        ("package policy\nallow := 1\n", "rule 'allow': expected true or false", ""),
        ("package policy\ntrust_claims := []\n", "expected any of instance-identity", ""),
        ('package policy\ntrust_claims := {"hardware": "2"}\n', "expected -128 to 127", ""),
        (LOOP.replace("  input.a\n", ""), "took too much of the processor", ""),
        (HEAD + "allow if count(numbers.range(1, 1000000000)) > 0\n", "took too much", ""),
        (HEAD + LARGE + "reason := [x, x, x, x, x]\n", "gave an answer above", ""),
    ],
    ids=range(11),
)
def test_an_upload_that_cannot_be_put_in_force_is_refused(text, message, where):
    with pytest.raises(FormatError, match=message) as caught:
        check(text)
    assert caught.value.what == "policy"
    assert caught.value.where == where


def test_an_upload_that_can_be_put_in_force_is_taken():
    check(YES)
    check('package policy\ntrust_claims := {"hardware": 2} if input.snp\n')


DOUBLING = 'a0 := "xxxxxxxxxxxxxxxx"\n' + "".join(
    f'a{one + 1} := concat("", [{", ".join([f"a{one}"] * 8)}])\n' for one in range(10)
)
HOSTILE = {
    "a loop": (LOOP, "processor"),
    "strings that double": (HEAD + DOUBLING + "allow if { input.a; count(a10) > 5 }\n", "failed"),
    "a range": (HEAD + "allow if { input.a; count(numbers.range(1, 1000000000)) > 0 }\n", SPENT),
    "values without end": (
        LOOP.replace("[1 |", "[[a, b] |").replace("a * b == 7", "a + b > 0"),
        SPENT,
    ),
    "a regular expression": (  # this engine's do not go back
        HEAD + 'allow if { input.a; regex.match("(a+)+$", sprintf("%s!", [input.b])) }\n',
        None,
    ),
    "a recursion": (HEAD + "allow if { input.a; f(1) }\nf(x) := f(x + 1)\n", "failed"),
    "an answer that is large": (
        HEAD + LARGE + "reason := [x, x, x, x, x] if input.a\n",
        "large",
    ),
    "an answer that is no JSON": (HEAD + 'reason := hex.decode("22") if input.a\n', "failed"),
    "a text that is none": (HEAD + "allow if {", "refused"),
    "a text that does not build": (HEAD + "allow := 1 := 2", "build"),
    "a function that there is not": (HEAD + "allow if nope(input.a)", "calls"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_policy_denies_and_the_next_one_is_judged(case):
    text, fault = HOSTILE[case]

    async def work(engine):
        told = await engine.decide("a", text, input={"a": 1, "b": "a" * 40}, data=REQUEST)
        return told, await engine.decide("a", YES, input={"a": 1}, data=REQUEST)

    told, other = run(work)
    assert not told.allow
    assert other.allow
    if fault is not None:
        assert told.fault in fault if fault is SPENT else told.fault == fault
        assert told.reason


def test_a_policy_that_was_killed_three_times_is_suspended_for_its_tenant_alone():
    crash = HOSTILE["a range"][0]

    async def work(engine):
        async def fault(tenant, value):
            fault = (await engine.decide(tenant, crash, input=value, data=REQUEST)).fault
            return "spent" if fault in SPENT else fault

        killed = [await fault("a", {"a": 1}) for _ in range(3)]
        after = [await fault("a", {}), await fault("b", {})]
        other = await engine.decide("a", YES, input={"a": 1}, data=REQUEST)
        return killed, after, other.allow

    assert run(work) == (["spent"] * 3, ["suspended", ""], True)


def test_those_that_wait_behind_a_policy_that_is_killed_get_their_answers():
    crash = HOSTILE["a range"][0]

    async def work(engine):
        def ask(text):
            return engine.decide("a", text, input={"a": 1}, data=REQUEST)

        return await asyncio.gather(ask(YES), ask(crash), ask(YES), ask(crash), ask(YES))

    told = run(work)
    assert [one.allow for one in told] == [True, False, True, False, True]
    assert [one.fault in SPENT for one in told] == [False, True, False, True, False]


def test_a_policy_that_does_not_end_is_killed_by_the_clock_too():
    assert run(
        lambda engine: engine.decide("a", LOOP, input={"a": 1}, data=REQUEST), wall_s=0.8
    ).fault in ("slow", "processor", "unavailable")


def test_facts_that_are_too_large_or_no_text_are_denied():
    text = HEAD + "allow if count(input) > 0\n"
    assert decide(text, {"a": "x" * 5_000_000}).fault == "input"
    assert decide(text, {"a": "\ud800"}).fault == "input"
    assert decide(text, {"a": float("nan")}).fault == "input"
    assert decide(YES, {"b": "\ud800", "a": 1}).allow  # it is not sent


def test_a_worker_ends_for_another_tenant_where_there_are_too_many():
    async def work(engine):
        async def ask(tenant):
            return (await engine.decide(tenant, YES, input={"a": 1}, data=REQUEST)).allow

        seen = []
        for tenant in ("a", "b", "a", "c"):
            assert await ask(tenant)
            seen.append(engine.processes)
        assert all(await asyncio.gather(*map(ask, "abcdefgh")))
        return seen, len(engine.processes)

    (one, two, three, four), last = run(work, max_workers=2)
    assert set(three) == set(two) > set(one)
    assert four[0] == one[0]  # b was idle for longest
    assert len(four) == last == 2


def test_too_many_that_wait_are_told_so(monkeypatch):
    monkeypatch.setattr(module, "_MAX_WAITING", 3)

    async def work(engine):
        await engine.decide("a", YES, input={"a": 1}, data=REQUEST)
        return await asyncio.gather(
            *(engine.decide("a", YES, input={"a": 1 + one}, data=REQUEST) for one in range(1, 6))
        )

    assert [one.fault for one in run(work)] == ["", "", "", "busy", "busy"]


def test_who_goes_away_takes_no_answer_from_another():
    async def work(engine):
        first = asyncio.ensure_future(engine.decide("a", YES, input={"a": 2}, data=REQUEST))
        await engine.decide("a", YES, input={"a": 1}, data=REQUEST)
        gone = asyncio.ensure_future(engine.decide("a", YES, input={"a": 2}, data=REQUEST))
        await asyncio.sleep(0)
        gone.cancel()
        told = await engine.decide("a", YES, input={"a": 1}, data=REQUEST)
        await first
        return told.allow

    assert run(work)


def test_after_closing_there_is_no_yes():
    async def work(engine):
        await engine.decide("a", YES, input={"a": 1}, data=REQUEST)
        await engine.close()
        return await engine.decide("a", YES, input={"a": 1}, data=REQUEST)

    assert run(work).fault == "unavailable"


def test_a_worker_that_somebody_ends_is_started_again():
    async def work(engine):
        await engine.decide("a", YES, input={"a": 1}, data=REQUEST)
        (number,) = engine.processes
        os.kill(number, 9)
        told = [await engine.decide("a", YES, input={"a": one}, data=REQUEST) for one in (2, 3, 1)]
        return told[1].fault, told[2].allow, number in engine.processes, len(engine.processes)

    assert run(work) == ("", True, False, 1)


def test_the_same_facts_get_the_answer_that_they_got_before():
    async def work(engine):
        async def ask(tenant, value, text=YES):
            return (await engine.decide(tenant, text, input={"a": value}, data=REQUEST)).allow

        assert await ask("a", 1)
        os.kill(engine.processes[0], 9)
        while engine.processes:  # noqa: ASYNC110 - it says so to nobody
            await asyncio.sleep(0)
        assert await ask("a", 1)
        assert engine.processes == ()  # nobody was asked
        assert not await ask("a", 2)
        assert not await ask("a", 1, HEAD + "allow if input.a == 2\n")
        assert await ask("b", 1)
        return len(engine.processes)

    assert run(work) == 2


def test_answers_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "_MAX_KEPT", 2)

    async def work(engine):
        for value in range(5):
            await engine.decide("a", YES, input={"a": value}, data=REQUEST)
        text = HEAD + f'reason := "{"x" * 5000}"\n'
        await engine.decide("a", text, input={}, data=REQUEST)
        kept = engine._tenants["a"]._answers
        return [one["found"] for one in kept.values()]

    assert run(work) == [{"allow": False}, {"allow": False}]


def test_without_a_program_there_is_no_yes(monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "/nonexistent")
    assert decide(YES, {"a": 1}).fault == "unavailable"


def test_a_program_that_is_no_worker_is_no_yes(monkeypatch):
    monkeypatch.setattr(module, "_MODULE", "this")
    assert decide(YES, {"a": 1}).fault == "unavailable"


def test_a_broker_that_dies_leaves_no_worker_behind():
    program = (
        "import asyncio, os\n"
        "from imagers.broker.policy.rego.engine import RegoEngine\n"
        "async def main():\n"
        "    engine = RegoEngine()\n"
        f"    await engine.decide('a', {YES!r}, input={{}}, data={{}})\n"
        "    print(engine.processes[0], flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, timeout=120
    )
    number = int(done.stdout)
    # It ends by itself when its socket does; a zombie has ended too.
    for _ in range(6000):
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        os.sched_yield()
        subprocess.run(["sleep", "0.01"], check=True)
    pytest.fail(f"{number} is still there")


def _resident(number):
    """KiB of a process."""
    status = Path(f"/proc/{number}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_thousands_of_policies_leave_a_bounded_memory_behind():
    async def work(engine):
        sizes = []
        for number in range(300):
            text = YES + f"x{number} := {number}\n"
            assert (await engine.decide("a", text, input={"a": 1}, data=REQUEST)).allow
            if number in (99, 299):
                sizes.append(_resident(engine.processes[0]))
        return sizes, len(engine._policies)

    (before, after), kept = run(work)
    assert after < before + 8 * 1024
    assert kept == 64


TRUST = (
    "package policy\nimport rego.v1\n"
    "default hardware := 97\n"
    'hardware := 2 if input.snp.svn in query_reference_value("svn")\n'
    'trust_claims := {"hardware": hardware}\n'
    'extensions := [{"name": "n", "key": -1, "value": {"a": [input.snp.svn]}}]\n'
)


def test_claims_are_appraised_by_reference_values():
    good = appraise(TRUST, {"snp": {"svn": 3}}, {"svn": [3], "other": [1] * 1000})
    assert good.vector["hardware"] == 2
    assert good.vector["executables"] == 0
    assert good.status == "affirming"
    assert good.extensions == ({"name": "n", "key": -1, "value": {"a": [3]}},)
    for references in ({}, {"svn": [4]}, {"svn": 3}, {"svn": None}):
        assert appraise(TRUST, {"snp": {"svn": 3}}, references).status == "contraindicated"


def test_other_reference_values_make_another_appraisal():
    async def work(engine):
        def ask(references):
            return engine.appraise("a", TRUST, input={"snp": {"svn": 3}}, references=references)

        return [(await ask({"svn": [one]})).status for one in (3, 4, 3)]

    assert run(work) == ["affirming", "contraindicated", "affirming"]


def test_an_attestation_policy_that_says_nothing_is_no_yes():
    text = "package policy\nimport rego.v1\ntrust_claims := {} if input.x\n"
    assert appraise(text).status == "none"
    assert appraise(text, {"x": 1}).status == "none"


@pytest.mark.parametrize(
    "body",
    [
        'trust_claims := {"hardware": 128}',
        'trust_claims := {"hardware": true}',
        'trust_claims := {"hardware": 2.5}',
        'trust_claims := {"hardwares": 2}',
        "trust_claims := 2",
        'trust_claims := {"hardware": 2}\nextensions := 1',
        'trust_claims := {"hardware": 2}\nextensions := [{"name": "n"}]',
        'trust_claims := {"hardware": 2}\nextensions := [{"name": 1, "key": 1, "value": 1}]',
        'trust_claims := {"hardware": 2}\nextensions := [{"name": "n", "key": "1", "value": 1}]',
    ],
)
def test_an_appraisal_of_another_form_is_worth_nothing(body):
    told = appraise("package policy\n" + body + "\n")
    assert told.fault == "unreadable"
    assert told.status == "contraindicated"
    assert UNKNOWN.items() <= told.vector.items()


def test_a_hostile_attestation_policy_is_worth_nothing():
    text = "package policy\ntrust_claims := {} if count(numbers.range(1, 1000000000)) > 0\n"
    assert appraise(text).fault in SPENT
    assert appraise("package policy\ntrust_claims := {").fault == "refused"


def test_the_status_is_that_of_the_worst_member():
    for values, status in (
        ((0, 0), "none"), ((2, 3), "affirming"), ((2, -3), "affirming"), ((2, 32), "warning"),
        ((2, -40), "warning"), ((-128, 2), "contraindicated"), ((2, 127), "contraindicated"),
    ):  # fmt: skip
        assert Appraised(dict(enumerate(values))).status == status


SNP = {"ear.status": "affirming", "ear.veraison.annotated-evidence": {"snp": {}}}
SAMPLE = {"ear.status": "affirming", "ear.veraison.annotated-evidence": {"sample": {}}}
WARNED = {"ear.status": "warning"}
# Of default, affirming, allow_all, deny_all: what Trustee's own engine says.
TOKENS = {
    "a guest": ({"cpu0": SNP}, (True, True, True, False)),
    "the sample TEE": ({"cpu0": SAMPLE}, (False, True, True, False)),
    "a device with a warning": ({"cpu0": SNP, "gpu0": WARNED}, (True, False, True, False)),
    "nothing": ({}, (True, False, True, False)),
}  # fmt: skip


@pytest.mark.parametrize("case", TOKENS)
def test_resource_policies_of_trustee_give_its_answers(case):
    submods, expected = TOKENS[case]
    names = ("default", "affirming", "allow_all", "deny_all")
    texts = [real_file(f"policies/trustee/{name}.rego").read_text() for name in names]

    async def work(engine):
        input_ = {"submods": submods}
        return [
            (await engine.decide("a", text, input=input_, data=data)).allow
            for text in texts
            for data in (REQUEST, REQUEST | {"plugin": "other"})
        ]

    told = run(work)
    assert tuple(told[::2]) == expected
    # Of another plugin two of them say no.
    assert told[1::2] == [False, expected[1], False, False]


def test_the_attestation_policy_of_trustee_gives_its_answers():
    cpu = real_file("policies/trustee/ear_default_policy_cpu.rego").read_text()
    snp = {
        "measurement": "aa", "reported_tcb_bootloader": 3, "reported_tcb_microcode": 115,
        "reported_tcb_snp": 8, "reported_tcb_tee": 0, "policy_debug_allowed": False,
        "policy_migrate_ma": False, "platform_smt_enabled": True, "platform_tsme_enabled": False,
        "policy_abi_major": 0, "policy_abi_minor": 31, "policy_single_socket": False,
        "policy_smt_allowed": True,
    }  # fmt: skip
    lists = {
        "snp_launch_measurement": ["aa"], "snp_bootloader": [3], "snp_microcode": [115],
        "snp_snp_svn": [8], "snp_tee_svn": [0],
    }  # fmt: skip
    values = {
        "snp_smt_enabled": True, "snp_tsme_enabled": False, "snp_guest_abi_major": 0,
        "snp_guest_abi_minor": 31, "snp_single_socket": False, "snp_smt_allowed": True,
    }  # fmt: skip
    image = {
        "OCI": {
            "Annotations": {"io.kubernetes.cri.image-name": "a:1"},
            "Process": {"User": {"UID": 9}},
        }
    }
    sample = {
        "sample": {
            "svn": "1",
            "launch_digest": "a",
            "platform_version": {"major": 1, "minor": 4},
            "debug": False,
        }
    }
    tpm = {"tpm": {"pcr11": "a", "ak_public": "b"}}
    sampled = {"launch_digest": ["a"], "svn": ["1"], "major_version": 1}
    cases = [
        ({"snp": snp}, lists | values, (3, 2, 2)),
        ({"snp": snp}, lists, (3, 2, 3)),
        ({"snp": snp}, {}, (33, 97, 3)),
        ({"snp": snp | {"policy_debug_allowed": True}}, lists | values, (3, 2, 36)),
        ({"snp": snp | {"measurement": "ab"}}, lists | values, (33, 2, 2)),
        ({}, lists | values, (33, 97, 36)),
        ({"cca": {"x": 1}}, {}, (33, 97, 36)),
        (sample, sampled | {"minimum_minor_version": 4}, (3, 2, 2)),
        (sample, sampled | {"minimum_minor_version": 5}, (3, 97, 2)),
        (sample, sampled, (3, 97, 2)),  # Trustee's fails open here: null is less than any number
        (tpm, {"tpm_pcr11": ["a"], "trusted_aks": ["b"]}, (3, 2, 0)),
        ({"se": {}}, {}, (3, 2, 2)),
    ]  # fmt: skip

    async def work(engine):
        return [
            await engine.appraise("a", cpu, input=claims, references=references)
            for claims, references, _ in cases
        ] + [
            await engine.appraise(
                "a",
                cpu,
                input={"init_data_claims": {"agent_policy_claims": {"containers": [image]}}},
                references={},
            )
        ]

    *told, images = run(work)
    names = ("executables", "hardware", "configuration")
    assert [tuple(one.vector[name] for name in names) for one in told] == [one for *_, one in cases]
    assert images.extensions[0]["value"] == {
        "validated": {"container_images": ["a:1"], "container_uids": [9]}
    }


def test_what_a_worker_is_asked_is_json_of_what_the_policy_names():
    async def work(engine):
        policy = await engine._scan(TRUST, ("trust_claims",))
        question = policy.question({"snp": {"svn": 3, "x": 4}, "y": 5}, {"svn": [3], "z": [4]})
        return [json.loads(one[4:]) for one in (question.short(), question.long())]

    short, long = run(work)
    assert short == {"policy": short["policy"], "input": {"snp": {"svn": 3}}}
    assert long["references"] == {"svn": [3]}
    assert long["names"] == ["trust_claims"]
    assert len(short["policy"]) == 64
