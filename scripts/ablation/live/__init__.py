"""Looking at studies while they run, from their files alone: no torch, no pandas, no SLURM, nothing written."""
