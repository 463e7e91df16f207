#!/bin/sh
# Run one sweep of four small runs under each of Hydra's launchers and count what completed:
#
#   pip install -e '.[launchers]'
#   scripts/single_machine_slurm.sh         # as root, if this machine is to try SLURM too
#   scripts/try_launchers.sh [FOLDER]
#
# FOLDER is for what the runs write (default: a temporary one; the nodes of a cluster must share
# it). PYTHON=... chooses the interpreter. A launcher that cannot be tried here is left out and
# named; the exit status is 1 if a tried one did not complete all of its runs.
set -u

PYTHON=${PYTHON:-python}
folder=${1:-$(mktemp -d)}
failed=0

try() { # LAUNCHER SETTINGS...
    launcher=$1
    shift
    began=$(date +%s)
    # threads= is not given: the runs show what the launcher made of the processors.
    "$PYTHON" -m normexp.train -m "hydra/launcher=$launcher" "$@" \
        norm=none,bn seed=0,1 data=synthetic data.train_images=300 data.test_images=60 \
        data.image_size=8 epochs=1 batch_size=10 log.tensorboard=false log.progress=false \
        output="$folder" name="$launcher" >"$folder/$launcher.log" 2>&1
    status=$?
    ended=$(date +%s)
    find "$folder/$launcher" -name result.json -exec cat {} + >"$folder/$launcher.results" 2>/dev/null
    completed=$(grep -c '"status": "completed"' "$folder/$launcher.results")
    threads=$(sed -n 's/.*"threads": \([0-9]*\).*/\1/p' "$folder/$launcher.results" | sort -u | xargs)
    echo "$launcher: $completed of 4 runs completed, exit status $status," \
        "$((ended - began)) s, CPU threads a run: ${threads:-none}"
    if [ "$completed" != 4 ] || [ "$status" != 0 ]; then
        echo "  see $folder/$launcher.log"
        failed=1
    fi
}

installed() { # PLUGIN
    "$PYTHON" -c "import hydra_plugins.$1" 2>/dev/null ||
        ! echo "${1#hydra_}: not installed: pip install -e '.[launchers]'"
}

mkdir -p "$folder"
try basic
if installed hydra_joblib_launcher; then
    try joblib hydra.launcher.n_jobs=2
fi
if installed hydra_ray_launcher; then
    try ray +hydra.launcher.ray.remote.num_cpus=1
fi
if installed hydra_submitit_launcher; then
    if sinfo --noheader >/dev/null 2>&1; then
        try submitit_slurm hydra.launcher.timeout_min=10 hydra.launcher.cpus_per_task=1 \
            hydra.launcher.mem_gb=2
    else
        echo "submitit_slurm: no SLURM answers here; scripts/single_machine_slurm.sh starts one"
    fi
fi
exit $failed
