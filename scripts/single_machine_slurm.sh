#!/bin/sh
# SLURM on this machine alone, with accounting, to try hydra/launcher=submitit_slurm with:
#
#   scripts/single_machine_slurm.sh          configure and start it
#   scripts/single_machine_slurm.sh stop     cancel its jobs and stop it
#
# It needs root and Debian's packages (tried with Debian 12's SLURM 22.05), neither systemd nor
# cgroups, so it works in a container. Where it already runs, starting changes nothing. A SLURM
# that something else configured is left alone.
set -eu

PACKAGES="slurmctld slurmd slurm-client munge slurmdbd mariadb-server"
STATE=/var/lib/single_machine_slurm
CONF=/etc/slurm/slurm.conf
DBD_CONF=/etc/slurm/slurmdbd.conf
MARK="# Written by single_machine_slurm.sh"
DATABASE_PORT=33306
PATH=$PATH:/usr/sbin:/sbin

refuse() {
    echo "single_machine_slurm.sh: $*" >&2
    exit 1
}

alive() { # DAEMON
    id=$(cat "$STATE/run/$1.pid" 2>/dev/null)
    [ -n "$id" ] && [ "$(cat "/proc/$id/comm" 2>/dev/null)" = "$(basename "$1")" ]
}

end() { # DAEMON
    if alive "$1"; then
        kill "$id"
        for _ in $(seq 60); do
            alive "$1" || return 0
            sleep 0.5
        done
        refuse "$1 does not stop"
    fi
}

await() { # WHAT COMMAND...
    what=$1
    shift
    for _ in $(seq 60); do
        if "$@" >/dev/null 2>&1; then
            return 0
        fi
        sleep 0.5
    done
    refuse "waited in vain for $what; see the logs in $STATE/log"
}

database() { # STATEMENTS
    mariadb --socket="$STATE/run/mariadb/socket" --execute="$1"
}

idle() { # no job waits or runs
    [ -z "$(squeue --noheader)" ]
}

configure() {
    umask 077
    for file in "$CONF" "$DBD_CONF"; do
        if [ -e "$file" ] && ! grep -q "^$MARK" "$file"; then
            refuse "$file is another SLURM's; this script leaves it alone"
        fi
    done
    install -d -m 0755 "$STATE" "$STATE/run" "$STATE/log" "$STATE/slurmctld" "$STATE/slurmd"
    install -d -o mysql -g mysql -m 0755 "$STATE/run/mariadb"
    install -d -o munge -g munge -m 0755 /run/munge "$STATE/run/munge" "$STATE/log/munge"
    [ -s /etc/munge/munge.key ] || runuser -u munge -- mungekey --create
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    cat >"$DBD_CONF" <<END
$MARK
DbdHost=localhost
AuthType=auth/munge
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$DATABASE_PORT
StorageUser=slurm
StoragePass=$password
PidFile=$STATE/run/slurmdbd.pid
LogFile=$STATE/log/slurmdbd.log
END
    umask 022
    # "NodeName=... CPUs=... RealMemory=...": this machine as SLURM finds it
    node=$(slurmd -C | head -n 1)
    cat >"$CONF" <<END
$MARK
ClusterName=single
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
MpiDefault=none
ReturnToService=2
ProctrackType=proctrack/linuxproc
# A job may use the processors that it asked for and no others, so torch starts as many threads.
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1024
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
JobAcctGatherType=jobacct_gather/linux
StateSaveLocation=$STATE/slurmctld
SlurmdSpoolDir=$STATE/slurmd
SlurmctldPidFile=$STATE/run/slurmctld.pid
SlurmdPidFile=$STATE/run/slurmd.pid
SlurmctldLogFile=$STATE/log/slurmctld.log
SlurmdLogFile=$STATE/log/slurmd.log
$node NodeAddr=127.0.0.1
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

start() {
    if alive slurmd && alive slurmctld && alive slurmdbd; then
        return 0
    fi
    stop
    configure
    if ! munge -n >/dev/null 2>&1; then
        runuser -u munge -- munged --pid-file="$STATE/run/munge/munged.pid" \
            --log-file="$STATE/log/munge/munged.log"
        await munged munge -n
    fi
    # submitit asks the accounting how a job ended: without it, it waits for ever for a cancelled one.
    if [ ! -d "$STATE/mariadb" ]; then
        mariadb-install-db --no-defaults --user=mysql --datadir="$STATE/mariadb" \
            --auth-root-authentication-method=socket >"$STATE/log/mariadb-install-db.log" 2>&1
    fi
    mariadbd --no-defaults --user=mysql --datadir="$STATE/mariadb" --bind-address=127.0.0.1 \
        --port=$DATABASE_PORT --socket="$STATE/run/mariadb/socket" \
        --pid-file="$STATE/run/mariadb/mariadbd.pid" >"$STATE/log/mariadbd.log" 2>&1 &
    await mariadbd database "SELECT 1"
    database "CREATE DATABASE IF NOT EXISTS slurm_acct_db;
        CREATE OR REPLACE USER slurm@'127.0.0.1' IDENTIFIED BY '$password';
        GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1'"
    slurmdbd
    await slurmdbd sacctmgr --noheader list cluster
    sacctmgr --immediate --quiet add cluster single >/dev/null 2>&1 || true
    slurmctld
    await slurmctld scontrol ping
    slurmd
    await slurmd srun --immediate=5 true
}

stop() {
    if alive slurmctld; then
        scancel --state=PENDING || true
        scancel --state=RUNNING || true
        await "the jobs' end" idle
    fi
    for daemon in slurmd slurmctld slurmdbd mariadb/mariadbd munge/munged; do
        end $daemon
    done
}

[ "$(id -u)" = 0 ] || refuse "it must be run as root"
for program in slurmctld slurmd sinfo munged slurmdbd mariadbd runuser; do
    command -v $program >/dev/null ||
        refuse "$program is missing: apt-get install --no-install-recommends $PACKAGES"
done
case "${1:-start}" in
start)
    start
    sinfo
    ;;
stop) stop ;;
*) refuse "use it without an argument, or with stop" ;;
esac
