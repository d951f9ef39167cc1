# What a client sees of failovers: lvstun beside keepalived, in one topology, in one run.
#   bin/lab run deploy/bench/failover.sh [REPETITIONS [SYSTEMS [EVENTS]]]
# SYSTEMS is a regexp over their names; EVENTS are names with commas between, in the order in which they are done.
# In every repetition the systems take turns, each time another one first, so that what drifts hits all alike; each
# starts on directors that have just booted. keepalived is the host's own.
# Left in $LAB_ARTIFACTS: failover.json, failover.svg, and the logs.

repetitions=${1:-10} only=${2:-.} events=${3:-handover,stop,freeze,crash}
frozen=5    # seconds a daemon stays frozen: longer than any of the systems takes to notice
patience=15 # seconds within which the standby must have taken over

names=('lvstun 100/300 ms' 'lvstun 10/30 ms' 'keepalived 1 s' 'keepalived 0.1 s' 'keepalived 0.01 s')
declare -A settings=(
	['lvstun 100/300 ms']='lvstun 100ms 300ms' # the defaults
	['lvstun 10/30 ms']='lvstun 10ms 30ms'
	['keepalived 1 s']='keepalived 2 1' # the defaults
	['keepalived 0.1 s']='keepalived 3 0.1'
	['keepalived 0.01 s']='keepalived 3 0.01' # the least that VRRP can say
)
systems=()
for name in "${names[@]}"; do
	if [[ $name =~ $only ]]; then systems+=("$name"); fi
done

directors=($(nodes director)) realservers=($(nodes realserver)) client=$(nodes client | head -n 1)
first=${directors[0]} second=${directors[1]}
measurements=$LAB_ARTIFACTS/measurements.jsonl
declare -A device address
for node in "${directors[@]}"; do
	read -r device[$node] address[$node] < <(on "$node" ip -o route get "$LAB_VIP" | sed 's/.* dev \([^ ]*\) .*src \([^ ]*\) .*/\1 \2/')
done
for node in "${realservers[@]}"; do
	read -r address[$node] _ < <(on "$node" hostname -I)
done

put() { on "$1" sh -c 'mkdir -p "${0%/*}"; umask 077; cat >"$0"' "$2"; }
other() { if [ "$1" = "$first" ]; then echo "$second"; else echo "$first"; fi; }

# --- The systems: KIND_configure NODE SETTINGS…, KIND_daemon, KIND_ready ACTIVE, KIND_handover NODE, KIND_handed_over NODE.

lvstun_configure() {
	local node=$1 interval=$2 dead=$3 peer rs
	peer=$(other "$node")
	on "$node" sh -c 'mkdir -p /etc/lvstun; umask 077; [ -e /etc/lvstun/cluster.key ] || cat >/etc/lvstun/cluster.key' <<<"$key"
	{
		cat <<-YAML
			name: $node
			heartbeat:
			  paths: [{local: ${address[$node]}, peer: ${address[$peer]}}]
			  interval: $interval
			  dead: $dead
			sync: {device: ${device[$node]}, id: 50}
			services:
			  - name: HTTP
			    vip: $LAB_VIP
			    device: ${device[$node]}
			    port: 80
			    scheduler: wlc
			    check: {kind: none}
			    servers:
		YAML
		for rs in "${realservers[@]}"; do echo "      - {address: ${address[$rs]}}"; done
	} | put "$node" /etc/lvstun/director.yaml
}
lvstun_daemon() { echo 'exec lvs-director run'; }
# The active one knows itself and its peer.
lvstun_ready() {
	local status
	status=$(on "$1" lvs-director status --json | tr -d ' \n')
	grep -q '"role":"active"' <<<"$status" && grep -q '"role":"standby"' <<<"$status" || { echo "$status"; return 1; }
}
lvstun_handover() { on "$1" lvs-director handover; }
lvstun_handed_over() { :; }

# keepalived as its documentation has it, and the first director preferred, so that a change of priority moves the VIP.
keepalived_configure() {
	local node=$1 version=$2 advert=$3 priority=90 rs
	[ "$node" = "$second" ] || priority=100
	{
		cat <<-CONF
			global_defs {
			  router_id $node
			  lvs_sync_daemon ${device[$node]} bench id 50
			}
			track_file handover {
			  file /etc/keepalived/handover
			  weight 1
			  init_file 0
			}
			vrrp_instance bench {
			  version $version
			  state BACKUP
			  interface ${device[$node]}
			  virtual_router_id 50
			  priority $priority
			  advert_int $advert
			  virtual_ipaddress {
			    $LAB_VIP/32 dev ${device[$node]}
			  }
			  track_file {
			    handover
			  }
			}
			virtual_server $LAB_VIP 80 {
			  lb_algo wlc
			  lb_kind TUN
			  protocol TCP
		CONF
		for rs in "${realservers[@]}"; do printf '  real_server %s 80 {\n    weight 1\n  }\n' "${address[$rs]}"; done
		echo '}'
	} | put "$node" /etc/keepalived/keepalived.conf
	put "$node" /etc/keepalived/handover <<<0
}
keepalived_daemon() {
	echo 'exec keepalived --dont-fork --log-console --log-detail -f /etc/keepalived/keepalived.conf -p /run/keepalived.pid -r /run/vrrp.pid -c /run/checkers.pid'
}
# The preferred one has the VIP back, and the other has said last that it is its backup.
keepalived_ready() {
	local said
	[ "$1" = "$first" ] || { echo "$first does not have the VIP yet"; return 1; }
	said=$(grep -o 'Entering [A-Z]* STATE' "$LAB_LOGS/$second.director.log" | tail -n 1)
	[ "$said" = 'Entering BACKUP STATE' ] || { echo "$second: $said"; return 1; }
}
keepalived_handover() { on "$1" sh -c 'echo -50 >/etc/keepalived/handover'; }
keepalived_handed_over() { on "$1" sh -c 'echo 0 >/etc/keepalived/handover'; }

# --- Directors.

# fresh SYSTEM boots both directors anew with it.
fresh() {
	local node kind rest
	read -r kind rest <<<"${settings[$1]}"
	for node in "${directors[@]}"; do
		"${kind}_configure" "$node" $rest
		put "$node" /etc/bench/daemon <<<"start director sh -c 'echo \$\$ >/run/director.pid; $("${kind}_daemon")'"
		put "$node" /etc/lvstun/boot <<-BOOT
			start holders bench holders $LAB_VIP
			bash /etc/bench/daemon
		BOOT
	done
	for node in "${directors[@]}"; do unplug "$node"; done
	for node in "${directors[@]}"; do boot "$node"; done
}

# unplug NODE crashes it; its watcher cannot tell that the VIP went with it.
unplug() {
	local at=${EPOCHREALTIME/[.,]/}
	crash "$1"
	echo "$at free" >>"$LAB_LOGS/$1.holders.log"
}

# tell NODE SIGNAL [all] sends the daemon, or it and all its children, a signal.
tell() { on "$1" sh -c 'kill -s "$0" -- "$1$(cat /run/director.pid)"' "$2" "${3:+-}"; }
ended() { on "$1" sh -c '! kill -0 "$(cat /run/director.pid)" 2>/dev/null'; }

# holds NODE holds when its watcher has said so last.
holds() {
	local lines
	mapfile -t lines <"$LAB_LOGS/$1.holders.log"
	[[ ${lines[-1]-} == *held ]]
}
# alone NODE holds when this director and not the other has the VIP.
alone() { holds "$1" && ! holds "$(other "$1")" || { echo "the VIP is not on $1 alone"; return 1; }; }
settled() { alone "$first" || alone "$second"; }
active() { if alone "$first" >/dev/null; then echo "$first"; else echo "$second"; fi; } # where settled

# ready SYSTEM holds when one director is active and the other can take over.
ready() {
	local kind node
	settled || return
	node=$(active)
	read -r kind _ <<<"${settings[$1]}"
	"${kind}_ready" "$node" || return
	[ "$(on "$(other "$node")" ipvsadm -S -n | grep -c -- ' -r ')" = ${#realservers[@]} ] || { echo 'the table of the standby is not full'; return 1; }
}

# --- Events: do_EVENT ACTIVE STANDBY KIND, and undo_EVENT the same, after the measurement.

do_handover() { "$3_handover" "$1" && wait_for $patience alone "$2"; }
undo_handover() { "$3_handed_over" "$1"; }

do_stop() { tell "$1" TERM && wait_for $patience ended "$1" && wait_for $patience alone "$2"; }
undo_stop() { on "$1" bash /etc/bench/daemon; }

# After the thaw either may have the VIP.
do_freeze() {
	tell "$1" STOP all && sleep $frozen && tell "$1" CONT all && wait_for $patience settled "$2"
}
undo_freeze() { :; }

do_crash() { unplug "$1" && wait_for $patience alone "$2"; }
undo_crash() { boot "$1"; }

# prepare SYSTEM waits until one director is active, the other can take over, and the client is served well.
prepare() {
	: >"$LAB_LOGS/$client.load.log"
	wait_for 12 ready "$1" && start "$client" load bench load "$LAB_VIP:80" &&
		wait_for 20 grep -q ready "$LAB_LOGS/$client.load.log" && wait_for 5 settled
}

# measure SYSTEM EVENT ROUND
measure() {
	local system=$1 event=$2 round=$3 kind node trouble=
	read -r kind _ <<<"${settings[$system]}"
	if ! prepare "$system"; then
		diagnose
		stop "$client" load || true # where it was started and has not given up
		trouble='it was not ready and had to be booted anew; '
		fresh "$system"
		prepare "$system"
	fi
	node=$(active)
	trouble+=$("do_$event" "$node" "$(other "$node")" "$kind" 2>&1 >/dev/null | head -c 300 | tr '\n' ' ') || true
	stop "$client" load
	bench record --system "$system" --event "$event" --round "$round" --trouble "$trouble" --to "$measurements" \
		--load "$LAB_LOGS/$client.load.log" --one "$LAB_LOGS/$first.holders.log" --other "$LAB_LOGS/$second.holders.log"
	"undo_$event" "$node" "$(other "$node")" "$kind"
}

# diagnose tells what the directors' processes do.
diagnose() {
	local node
	for node in "${directors[@]}"; do
		echo "$node:"
		on "$node" ps -e -o pid,stat,wchan:32,comm
	done >&2
}

# --- The run.

key=$(on "$first" sh -c 'lvs-director keygen /run/key >/dev/null && cat /run/key')
for node in "${realservers[@]}"; do
	on "$node" sh -c 'ip link set tunl0 up && ip address add "$0/32" dev tunl0 &&
		sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0 net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2' "$LAB_VIP"
	start "$node" web bench serve "$node"
done
on "$client" sysctl -qw net.ipv4.ip_local_port_range='1024 65535'
trap 'cp "$LAB_LOGS"/*.log "$LAB_ARTIFACTS"' EXIT

for ((round = 1; round <= repetitions; round++)); do
	echo "repetition $round of $repetitions, after $((SECONDS / 60)) min"
	for ((i = 0; i < ${#systems[@]}; i++)); do
		system=${systems[(i + round - 1) % ${#systems[@]}]}
		fresh "$system"
		for event in ${events//,/ }; do measure "$system" "$event" "$round"; done
	done
done

said=$(keepalived --version 2>&1)
[[ $said =~ v([0-9.]+) ]]
lvstun=$(lvs-director --version)
echo
bench report --out "$LAB_ARTIFACTS" --version "keepalived=${BASH_REMATCH[1]}" --version "lvstun=${lvstun##* }" "$measurements"
