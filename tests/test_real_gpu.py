"""Leases, neighbours and attempts on a real GPU, whose UUID and processes NVML tells."""

import multiprocessing
import os
import time

import launch
import pytest
import torch
from small_vggt import job, prepare, run_of
from test_neighbours import ends

from ablation import gpus, nvml
from ablation.gpus import Share
from ablation.neighbours import CardShared, of_place
from ablation.probe.measure import measure
from ablation.systems.vggt.system import System
from ablation.vram.budget import GIB, Budget, hold_to_share

pytestmark = pytest.mark.gpu
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def leased(tmp_path, monkeypatch):
    """The machine's GPUs as NVML names them, leased in a folder of the test's own."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv(gpus.FOLDER, str(tmp_path / "leases"))
    return nvml.gpu_uuids()


def test_a_real_gpu_is_leased_by_its_uuid_whatever_it_is_called(leased, monkeypatch):
    with gpus.lease_gpus(1) as held:
        assert held.gpus == leased[:1] and held.gpus[0].startswith(("GPU-", "MIG-"))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        monkeypatch.setattr(gpus.leave, "_asked", ["SIGTERM"])
        with pytest.raises(gpus.leave.Left), gpus.lease_gpus(1):
            pass


def hold_part(mib, card_mib, uuid, both, full):
    """A job that holds a part of a card, fills it, and tells how much was there."""
    os.environ["CUDA_VISIBLE_DEVICES"] = uuid
    with gpus.lease_gpus(1, share=Share(mib, card_mib)) as held:
        hold_to_share(held.share_gib, torch.device("cuda", 0))
        kept = []
        both.wait(120)
        try:
            while True:
                kept.append(torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            full.put((os.environ["CUDA_VISIBLE_DEVICES"], torch.cuda.memory_reserved(), held.most()))
            both.wait(120)


def test_two_jobs_on_one_card_have_their_parts_and_no_more(leased):
    both, full = SPAWN.Barrier(2), SPAWN.Queue()
    jobs = [SPAWN.Process(target=hold_part, args=(3072, gpus.card_mib(24.0), leased[0], both, full)) for _ in range(2)]
    for one in jobs:
        one.start()
    found = [full.get(timeout=240) for _ in jobs]
    for one in jobs:
        one.join(60)
        assert one.exitcode == 0
    for uuid, held, most in found:
        assert uuid == leased[0] and 2.3 * GIB < held <= 2.5 * GIB and most == 2


def occupy(size, there, done):
    """A neighbour."""
    kept = torch.empty(size, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    there.set()
    done.wait(240)
    del kept


def test_a_real_error_of_memory_beside_a_neighbour_is_no_result(gpu, tmp_path, tiny):
    run, (there, done) = run_of(tmp_path, tiny), (SPAWN.Event(), SPAWN.Event())
    free, total = torch.cuda.mem_get_info(gpu)
    neighbour = SPAWN.Process(target=occupy, args=(free - 3 * GIB, there, done))

    class Hungry(System):
        def objective(self, model, batch, name):
            self.kept = torch.empty(4 * GIB, dtype=torch.uint8, device="cuda")
            return super().objective(model, batch, name)

    neighbour.start()
    try:
        assert there.wait(240)
        budget = Budget("this", total / GIB - 0.5, emulated=False)
        with pytest.raises(CardShared, match=r"GiB of GPU \S+ were held by process"):
            measure(run, Hungry(run.settings), gpu, 2, budget)
        done.set()
        neighbour.join(60)
        assert of_place(0, gpus.visible_gpus()).found() is None
        assert measure(run, Hungry(run.settings), gpu, 2, budget)["outcome"] == "completed"
    finally:
        neighbour.kill()
        neighbour.join()


def test_a_bf16_run_that_is_killed_goes_on_from_its_checkpoint(leased, scene_root, vggt, tmp_path, tiny):
    root = prepare(scene_root, vggt, tmp_path)
    run = run_of(root, tiny, precision="bf16")
    launch.kill_after("checkpoint at step 2", *job(run, root, "killed"), device="cuda")
    time.sleep(1)  # until the driver has taken back what it held
    for name in ("killed", "undisturbed"):
        done = launch.train(*job(run, root, name), device="cuda")
        assert done.returncode == 0 and ("resuming after step" in done.stderr) == (name == "killed"), done.stderr
    assert ends(root / "killed") == [("completed", 1)]
    killed, undisturbed = (launch.history(root / name, "loss") for name in ("killed", "undisturbed"))
    assert killed == pytest.approx(undisturbed, rel=0.02)
