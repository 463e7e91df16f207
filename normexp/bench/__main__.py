"""python -m normexp.bench [norms|growth]: what things cost."""

import math
from argparse import RawDescriptionHelpFormatter
from functools import partial
from pathlib import Path

from normexp.bench.cells import cells
from normexp.config.checks import nearest
from normexp.config.command_line import OneLineParser, look_for_norms_here
from normexp.config.one_line import one_line_errors
from normexp.norms.catalogue import BUILT_IN
from normexp.system.errors import UserError
from normexp.system.openmp import wait_briefly

ABOUT = """\
Time things in one process and in turn: a machine whose speed drifts is fair
to all. PART is one of

steps       a step of the trainer beside that of a tutorial's script and of a
            bare loop over one resident batch; where seeds are fused, as by
            seeds=1,8, the time for each of them; this is the default
norms       the norms of a model, forward and backward, over a plain copy of
            their inputs, and the memory that they keep for backward
growth      how time and peak memory grow, of a process that does nothing else;
            or only one of these:
batch_size  a step, for each seed, of more images, in turn and fused
seeds       a step, for each seed, of more seeds in one network
runs        a sweep of more runs, and again when they are all done
images      loading more images
"""
STEPS = "epochs=1000000"
# Alone syncbn does what bn does, and on a GPU only; frozen_bn needs weights or another setting.
NORMS = ",".join(name for name in BUILT_IN if name not in ("syncbn", "frozen_bn"))
PARTS = {
    "steps": (STEPS, "model=simple_cnn,mlp", "norm=bn", "batch_size=2,128"),
    "norms": ("model=deep_cnn", "batch_size=2,128", f"norm={NORMS}"),
    "batch_size": (STEPS, "seeds=1,8", "batch_size=2,8,32,128"),
    "seeds": (STEPS, "batch_size=2,8,32", "seeds=1,2,4,8,16,32"),
    # So small that a sweep of them shows what a run costs beside its steps.
    "runs": (
        *("data.train_images=500", "data.test_images=100", "batch_size=50", "epochs=1"),
        *("log.progress=false", "seeds=1,2,4,8"),
    ),
    "images": (STEPS, "data.train_images=1000,10000,50000"),
}


def main(arguments: list[str] | None = None) -> None:
    parser = OneLineParser(
        prog="python -m normexp.bench", description=ABOUT, allow_abbrev=False,
        formatter_class=RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "settings", nargs="*", metavar="PART|KEY=VALUE",
        help="settings are as for normexp.train; several values, norm=bn,mine:rms, are compared; "
        "images are synthetic unless data= says otherwise",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often each is timed (default: 5)"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="of each in a round, about (default: 0.5)"
    )
    parser.add_argument(
        "--csv", type=Path, help="of the table; a picture lies beside it (default: outputs/bench-*)"
    )
    look_for_norms_here()
    wait_briefly()
    with one_line_errors():
        options = parser.parse_intermixed_args(arguments)
        settings = [text for text in options.settings if "=" in text]
        part = " ".join(text for text in options.settings if "=" not in text) or "steps"
        known = [*PARTS, "growth"]
        if part not in known:
            hint = f"{nearest(part, known)} there are {', '.join(known)}"
            raise UserError(f"{part}: no such part of the bench;{hint}")
        if options.rounds < 1 or not 0 < options.seconds < math.inf:
            raise UserError("--rounds and --seconds must be above 0")
        path = options.csv or Path("outputs") / f"bench-{part}.csv"
        if path.suffix != ".csv":
            raise UserError(f"--csv {path}: must end in .csv; the picture ends in .png")
        parts = [part] if part != "growth" else known[2:-1]
        asked = [cell for name in parts for cell in cells(name, PARTS[name], settings)]
        from normexp.bench import growth, norms, steps
        from normexp.bench.engine import in_turn, keep
        from normexp.trainer import process

        device = process.pick_device(asked[0].config.device)
        for cell in asked:
            steps.refuse_sync_bn(cell.config.norm, device)
        chosen = {"steps": steps, "norms": norms}.get(part, growth)
        with process.settings(asked[0].config, device):
            timer = partial(in_turn, device, options.rounds, options.seconds)
            keep(chosen.rows(asked, device, timer), chosen.COLUMNS, path, chosen.draw)


if __name__ == "__main__":
    main()
