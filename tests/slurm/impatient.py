"""Snakemake as it is, but for the pause between two looks at SLURM's queue, which its plugin lets grow to three minutes."""

import asyncio

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def soon(executor: RemoteExecutor) -> None:
    await asyncio.sleep(1)


RemoteExecutor.sleep = soon

if __name__ == "__main__":
    main()
