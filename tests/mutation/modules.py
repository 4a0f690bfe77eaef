"""What is mutated, and by which tests it is to be noticed; those of its own file are among them."""

MODULES = {
    "imagers/sign/judge.py": ["tests/unit/sign"],
    "imagers/sign/requirements.py": ["tests/unit/sign"],
    "imagers/sign/verify.py": ["tests/unit/sign"],
    "imagers/encrypt/annotations.py": [
        "tests/unit/encrypt/test_annotations.py",
        "tests/unit/encrypt/test_keys.py",
        "tests/unit/encrypt/test_rewrap.py",
        "tests/unit/encrypt/test_wrappers.py",
    ],
    "imagers/encrypt/packets.py": ["tests/unit/encrypt/test_packets.py"],
    "imagers/pull/trust.py": ["tests/unit/pull/test_trust.py", "tests/unit/pull/test_run.py"],
    "imagers/model/manifest.py": ["tests/unit/model"],
    "imagers/broker/policy.py": [
        "tests/unit/broker/test_policy.py",
        "tests/unit/broker/test_resources.py",
    ],
    "imagers/broker/handshake.py": [
        "tests/unit/broker/test_handshake.py",
        "tests/unit/broker/test_state.py",
        "tests/unit/broker/test_app.py",
    ],
}
