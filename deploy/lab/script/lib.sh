# The functions of lab scripts. bash reads this before the script (BASH_ENV). The script may use
#   LAB_VIP        the topology's virtual IP        LAB_LOGS       what `start` logs, one file each: NODE.NAME.log
#   LAB_ARTIFACTS  a folder that is kept
unset BASH_ENV
set -Eeuo pipefail

on() { "$LAB" on "$@"; }       # on NODE CMD…            run a command on a node and wait
start() { "$LAB" start "$@"; } # start NODE NAME CMD…    run it in the background under a name
stop() { "$LAB" stop "$@"; }   # stop NODE NAME [SIGNAL] send it a signal (TERM) and wait until it is gone
cut() { "$LAB" cut "$@"; }     # cut NODE [DEVICE]       take a cable out (all of them)
heal() { "$LAB" heal "$@"; }   # heal NODE [DEVICE]      put it back in
crash() { "$LAB" crash "$@"; } # crash NODE              cables out, every process killed
boot() { "$LAB" boot "$@"; }   # boot NODE               start it again; it runs its /etc/lvstun/boot
nodes() { "$LAB" nodes "$@"; } # nodes [ROLE]            print the nodes' names
cluster() { "$LAB" cluster; }  # cluster                 configure and start the whole cluster, wait until it serves

# wait_for SECONDS CMD… runs the command again and again until it succeeds.
wait_for() {
	local seconds=$1 out status=0
	shift
	local end=$((${EPOCHREALTIME/[.,]/} + seconds * 1000000))
	while ! out=$("$@" 2>&1); do
		if ((${EPOCHREALTIME/[.,]/} >= end)); then
			printf 'wait_for: still failing after %s s: %s\n' "$seconds" "$*" >&2
			[ -z "$out" ] || printf 'it last said: %s\n' "$out" >&2
			return 1
		fi
		sleep 0.1
	done
}

# lab_failed prints the script's own line that failed, whatever function it failed in.
lab_failed() {
	local status=$1 command=$2 i
	for ((i = 1; i < ${#BASH_SOURCE[@]}; i++)); do
		if [ "${BASH_SOURCE[i]}" != "${BASH_SOURCE[0]}" ]; then
			[ "$BASHPID" != "$$" ] || printf '%s:%s: failed with status %s: %s\n' \
				"${BASH_SOURCE[i]}" "${BASH_LINENO[i - 1]}" "$status" \
				"$(sed -n "${BASH_LINENO[i - 1]}s/^[[:space:]]*//p" "${BASH_SOURCE[i]}" 2>/dev/null || echo "$command")" >&2
			return
		fi
	done
}
trap 'lab_failed $? "$BASH_COMMAND"' ERR
