"""NVIDIA's management library, where there is one; None or nothing where not."""

import os
from contextlib import suppress
from functools import cache

import pynvml


@cache
def _started() -> bool:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    return True


def gpu_uuids() -> list[str]:
    """UUIDs of the GPUs of this machine that this process may use, in NVML's order."""
    found = []
    for number in range(pynvml.nvmlDeviceGetCount() if _started() else 0):
        with suppress(pynvml.NVMLError):  # one that a control group withholds; CUDA does not count it either
            found.append(_text(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(number))))
    return found


def uuid_of(name: str) -> str:
    """The UUID of a GPU that CUDA_VISIBLE_DEVICES names by number or by the start of it; other names are left as they are."""
    uuids = gpu_uuids()
    if name.isdigit():
        return uuids[int(name)] if int(name) < len(uuids) else name
    alike = [uuid for uuid in uuids if uuid.startswith(name)]
    return alike[0] if len(alike) == 1 else name


def gpu_name(uuid: str) -> str | None:
    """The maker's name of a GPU."""
    return _ask(uuid, lambda handle: _text(pynvml.nvmlDeviceGetName(handle)))


def driver_version() -> str | None:
    """Version of the driver."""
    return _text(pynvml.nvmlSystemGetDriverVersion()) if _started() else None


def device_used_bytes(uuid: str) -> int | None:
    """Memory in use on the whole device, by every process and the context."""
    return _ask(uuid, lambda handle: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used))


def process_used_bytes(uuid: str) -> int | None:
    """Memory of this process on the device, with its context; None where NVML cannot tell processes apart (containers)."""
    return processes(uuid).get(os.getpid())


def processes(uuid: str) -> dict[int, int | None]:
    """Memory of each process that computes on the device, by its number; None where NVML does not tell. Containers see few."""
    running = _ask(uuid, pynvml.nvmlDeviceGetComputeRunningProcesses) or []
    return {one.pid: one.usedGpuMemory for one in running}


def process_name(number: int) -> str:
    """The program of a process; empty where NVML does not tell."""
    if not _started():
        return ""
    try:
        return _text(pynvml.nvmlSystemGetProcessName(number))
    except (pynvml.NVMLError, UnicodeDecodeError):
        return ""


def usable_bytes(uuid: str) -> int | None:
    """Memory that programs can have on the device: its own less what the driver reserves."""
    return _ask(uuid, lambda handle: _usable(pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)))


def energy_joules(uuid: str) -> float | None:
    """Energy used since the driver was loaded; None where the card does not tell."""
    return _ask(uuid, lambda handle: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000)


def energy_of(gpus: list[str]) -> float | None:
    """The same of several, as CUDA_VISIBLE_DEVICES names them, together; None where there are none, or one does not tell."""
    counters = [energy_joules(uuid_of(name)) for name in gpus]
    return sum(counters) if counters and None not in counters else None


def _ask(uuid: str, question):
    if not _started():
        return None
    try:
        return question(pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"))
    except pynvml.NVMLError:
        return None


def _usable(memory: pynvml.c_nvmlMemory_v2_t) -> int:
    return int(memory.total - memory.reserved)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
