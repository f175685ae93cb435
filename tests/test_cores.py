"""How many processes trace side by side: as many as the cores that this process may use."""

import os

import pytest

from ablation.cores import usable_cores


def test_affinity_counts():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


ONE, NONE, PERIOD = "100000", "-1", "100000"


@pytest.mark.parametrize(
    ("member", "files", "cores"),
    [
        ("0::/user.slice/user-7.slice/session-1.scope", {"user.slice/user-7.slice/cpu.max": "100000 100000"}, 1),
        ("0::/user.slice/user-7.slice", {"user.slice/cpu.max": "max 100000", "user.slice/user-7.slice/cpu.max": "50 100"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, None),
        (
            "3:memory:/x\n4:cpu,cpuacct:/x",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": ONE, "cpu,cpuacct/x/cpu.cfs_period_us": PERIOD},
            1,
        ),
        ("4:cpu:/x", {"cpu/x/cpu.cfs_quota_us": NONE, "cpu/x/cpu.cfs_period_us": PERIOD}, None),
        ("rubbish", {}, None),
    ],
)
def test_the_quota_of_a_control_group_counts(tmp_path, member, files, cores):
    (tmp_path / "member").write_text(member)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert usable_cores(tmp_path / "groups", tmp_path / "member") == (cores or len(os.sched_getaffinity(0)))
