"""python run.py merge=slerp lambda=0.4 · python run.py -m merge=slerp lambda=0.1,0.2,0.4 · see README.md"""

# Hydra's shell completion takes a file for a program of Hydra where it finds @hydra.main in it; it is in cli/entry.py.
import sys

from patientdx.cli.entry import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
