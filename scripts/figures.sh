#!/usr/bin/env bash
# Makes the figures of README and docs again, below outputs/ and on the terminal. Every part can be
# made alone and stopped at any time: the same line goes on where it was.
#
#   scripts/figures.sh IMAGES [PART ...]
#
# IMAGES: a folder with CIFAR-10 as train/<class>/* and test/<class>/*. Parts, with the time they
# take on two cores:
#   first      the README's first command                                            2 min
#   study      the README's larger answer, and docs/study                            1 h
#   catalogue  docs/catalogue: sixteen norms                                         10 min
#   compare    docs/compare.md: five norms at batch 2 and 32                         15 min
#   mobilenet  docs/compare.md: a network of torchvision as it is, and with GN       30 min
#   noise      docs/report.md: constant and annealed rates                           30 min
#   precise    docs/looking-closer.md: what of BN's loss at batch 2 is evaluation    1 h
#   cnn64      docs/presets.md: bn_gn_cnn64, batch 128 and 8, two seeds              a day
#   resnet20   docs/presets.md: an epoch or more of resnet20_bn                      an hour
#   statistics docs/report.md: what the statistics promise                           5 min
#   looks      docs/compare.md: what planned looks promise                           20 min
#   fusable    docs/models-and-images.md: which networks can be fused                10 min
#   speed      docs/speed.md                                                         20 min
#   kills      docs/sweeps.md, docs/compare.md: nothing is lost                      30 min
set -euo pipefail
images=${1:?give a folder with CIFAR-10 as train/<class>/* and test/<class>/*}
shift
cd "$(dirname "$0")/.."
data=(data=image_folder "data.root=$images" threads=1)
train=(python -m normexp.train)
compare=(python -m normexp.compare)
report=(python -m normexp.report)

first() { "${compare[@]}" norm=none,bn,ln,gn batch_size=2,16 data=digits epochs=3 budget=2m threads=1 name=first; }
study() {
    "${train[@]}" experiment=study "${data[@]}"
    "${report[@]}" outputs/study
}
catalogue() {
    "${train[@]}" -m norm=none,bn,ln,in,gn,ghost_bn,batch_renorm,ln2d,rms,frn,evonorm_s0,evonorm_b0,dyt,derf,switchable,batch_instance \
        batch_size=16 norm.ghost_batch_size=4 seeds=6 max_steps=1000 name=catalogue fuse=6 "${data[@]}"
    "${report[@]}" outputs/catalogue
}
compare() {
    "${compare[@]}" norm=none,bn,ln,in,gn batch_size=2,32 "${data[@]}" data.train_size=10000 \
        data.test_size=5000 epochs=4 budget=14m name=compare
}
mobilenet() {
    "${compare[@]}" model=torchvision:mobilenet_v3_small norm=keep,gn norm.num_groups=auto batch_size=2 \
        "${data[@]}" data.image_size=64 data.train_size=2000 data.test_size=2000 epochs=5 budget=30m name=mobilenet
}
noise() {
    "${train[@]}" -m norm=bn,gn scheduler=constant,cosine batch_size=32 epochs=2 seeds=8 name=noise32 "${data[@]}"
    "${train[@]}" -m norm=bn,gn scheduler=constant,cosine batch_size=2 max_steps=20000 seeds=8 name=noise2 "${data[@]}"
}
precise() {
    local same=(batch_size=2 seeds=12 epochs=2 scheduler=cosine name=precise "${data[@]}")
    "${train[@]}" -m norm=bn,gn 'evaluate.bn_stats=[running,precise,batch]' "${same[@]}"
    "${train[@]}" -m norm=frozen_bn norm.freeze_at=0.5,0.75 "${same[@]}"
    "${report[@]}" outputs/precise
    python scripts/draw_precise.py outputs/precise docs/precise.png
}
cnn64() { "${train[@]}" experiment=bn_gn_cnn64 batch_size=128,8 seeds=2 "${data[@]}"; }
resnet20() { timeout 3600 "${train[@]}" experiment=resnet20_bn seeds=1 "${data[@]}" || true; }
statistics() { python scripts/measure_statistics.py; }
looks() { python scripts/simulate_looks.py --tables 500; }
fusable() { python scripts/fusable.py; }
speed() {
    python -m normexp.bench model=simple_cnn,mlp norm=bn batch_size=2,10 seeds=1,8
    python -m normexp.bench growth
}
kills() {
    local folder
    folder=$(mktemp -d)
    python scripts/kill_sweep.py "$folder/sweep" --kills 40 --seed 0
    python scripts/kill_compare.py "$folder/compare" --kills 10 --seed 1
}

all=(first study catalogue compare mobilenet noise precise cnn64 resnet20 statistics looks fusable speed kills)
(($#)) || set -- "${all[@]}"
for part in "$@"; do
    if ! printf '%s\n' "${all[@]}" | grep -qx -- "$part"; then
        echo "$part: no such part; there are ${all[*]}" >&2
        exit 2
    fi
done
for part in "$@"; do
    echo "== $part, $(date -u +%Y-%m-%d), $(git rev-parse --short HEAD), $(nproc) cores"
    "$part"
done
