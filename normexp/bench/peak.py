"""python -m normexp.bench.peak KEY=VALUE ...: load the data, take some steps, and print as JSON the
most memory in MiB that took. A process for itself: nothing of what came before is counted."""

import json
import sys

from normexp.entry import compose, one_line_errors
from normexp.openmp import wait_briefly

STEPS = 3


def main() -> None:
    with one_line_errors():
        config = compose(sys.argv[1:])
        wait_briefly()
        from normexp.bench.loops import trainer_loop
        from normexp.data import sources
        from normexp.trainer import process

        device = process.pick_device(config.device)
        with process.settings(config, device):
            dataset = sources.load(config.data, progress=False)
            trainer_loop(config, dataset, device)(STEPS)
            print(json.dumps(process.peak_memory_mb(device)))


if __name__ == "__main__":
    main()
