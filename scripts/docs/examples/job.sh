#!/bin/sh
#SBATCH --nodes=2 --ntasks-per-node=4 --gpus-per-task=1
# The launcher and this script run as without the pool; each rank is started under it.
srun cmp-preload run --reports reports -- ./app
cmp-preload report reports
