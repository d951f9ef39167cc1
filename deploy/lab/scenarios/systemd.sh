# The units of deploy/systemd under systemd itself: ready, restarted, bitten by the watchdog, stopped, and with no more
# privileges than they say. A director, vs, and a real server, rs1, run so, in a cluster whose others run plainly.
#
# A guest that is starved of CPU takes many times as long as a quiet one. So what has to come is waited for with
# patience, and a time is asserted only where it is the point.
patience=60

root=${LAB%/bin/*}

# systemd NODE boots systemd on the node, as process 1 of a PID namespace, in a cgroup of its own. It finds our units,
# untouched, the programs in /usr/sbin, and of the distribution's units the few that these stand on. What it would write
# goes to memory. In a container it does not share / itself, and without that no credential arrives.
systemd() {
	start "$1" systemd bash -ec '
		mkdir /run/cgroup
		mount -t cgroup2 cgroup2 /run/cgroup
		own=/run/cgroup$(sed -n "s/^0:://p" /proc/self/cgroup)/$HOSTNAME.systemd
		mkdir -p "$own"
		echo $$ >"$own/cgroup.procs"
		exec unshare --pid --fork --kill-child --mount --cgroup bash -ec "$1" - "$0"' "$root" '
		mount --make-rshared /
		mount -t overlay -o "lowerdir=$1/bin:/usr/sbin" overlay /usr/sbin
		mount -t proc proc /proc
		mount -o bind,ro /proc/sys /proc/sys
		mount -o bind,rw /proc/sys/net /proc/sys/net
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
		mount -t tmpfs -o mode=755 tmpfs /run
		mkdir -p /run/units/basic.target.wants /run/units/lvs-{director,agent}.service.d
		cd /lib/systemd/system
		cp "$1"/deploy/systemd/*.service {basic,sysinit,sockets,shutdown,network,network-online}.target \
			systemd-journald{.service,.socket,-dev-log.socket} /run/units
		ln -s ../systemd-journald.service /run/units/basic.target.wants
		# 30 s would be long to wait for; less than the 10 s of its loop would be too few.
		printf "[Service]\nWatchdogSec=12s\nTimeoutStopSec=60s\n" >/run/units/lvs-director.service.d/test.conf
		printf "[Service]\nTimeoutStopSec=60s\n" >/run/units/lvs-agent.service.d/test.conf
		for dir in /tmp /var/tmp /var/log ../system-generators; do mount -t tmpfs tmpfs $dir; done
		container=lab SYSTEMD_UNIT_PATH=/run/units exec /lib/systemd/systemd --system --unit=basic.target'
}

# booted NODE waits until it is up.
booted() {
	wait_for $patience on "$1" pgrep -xo systemd
	process1[$1]=$(on "$1" pgrep -xo systemd)
	wait_for $patience by "$1" systemctl -q is-active basic.target
}
declare -A process1

# by NODE CMD… runs a command where the node's systemd is.
by() { on "$1" nsenter -t "${process1[$1]}" -p -m -C env SYSTEMD_UNIT_PATH=/run/units timeout 120 "${@:2}"; }

# clean takes away the cgroups, which outlive the nodes. After a failure it tells what the services said.
clean() {
	local status=$? node
	set +e
	for node in "${!process1[@]}"; do
		[ "$status" = 0 ] || by "$node" journalctl -t systemd -t lvs-director -t lvs-agent >"$LAB_LOGS/$node.journal.log"
		stop "$node" systemd KILL
		wait_for 5 on "$node" sh -c 'find /run/cgroup -depth -path "*/$0.systemd*" -type d -exec rmdir {} +' "$node"
	done
} 2>/dev/null
trap clean EXIT

# confined NODE UNIT CAPABILITIES holds when the service runs as a dynamic user (systemd.exec(5)) that has these
# capabilities, in every set, and can gain no others.
confined() {
	local status
	status=$(by "$1" sh -c 'cat "/proc/$(systemctl show --value -p MainPID "$0")/status"' "$2")
	grep -E '^(Name|Uid|Cap|NoNewPrivs|Seccomp)' <<<"$status"
	awk '/^Uid:/ { exit !($2 >= 61184 && $2 <= 65519 && $2 == $3 && $2 == $4 && $2 == $5) }' <<<"$status"
	[ "$(sed -n 's/^Cap...:\t0*//p' <<<"$status" | sort -u)" = "$3" ]
	grep -qx 'NoNewPrivs:.1' <<<"$status"
	grep -qx 'Seccomp:.2' <<<"$status"
}

# tight NODE UNIT holds when systemd finds nothing wrong with the unit and its exposure is at most 3.0.
tight() {
	[ -z "$(by "$1" systemd-analyze verify --man=no "$2.service" 2>&1)" ]
	by "$1" systemd-analyze security --no-pager --threshold=30 "$2" | tail -n 1
}

# restarted NODE UNIT TIMES holds when the service is ready after so many restarts.
restarted() { [ "$(by "$1" systemctl show --value -p NRestarts -p SubState "$2" | sort | xargs)" = "$3 running" ]; }
# stopped NODE UNIT stops the service, which must end well.
stopped() {
	by "$1" systemctl stop "$2"
	[ "$(by "$1" systemctl show --value -p Result -p SubState -p ExecMainStatus "$2" | sort | xargs)" = '0 dead success' ]
}

# says WORDS CMD… holds when the command succeeds and says so.
says() {
	local out
	out=$("${@:2}") && [[ $out == *$1* ]] || { echo "no '$1' in: ${out-}" >&2; return 1; }
}

# holder NODE holds when this director has the VIP and no other.
holder() {
	local node
	[ "$(for node in vs vs_bk; do on $node ip -o address show to "$LAB_VIP" | sed "s/.*/$node/"; done)" = "$1" ]
}
table() { on "$1" ipvsadm -S -n | sed "s/^-a .* -r //; s/ .*//"; }
full=$(printf '%s\n' -A 192.168.1.100:80 192.168.1.200:80)
programmed() { [ "$(table "$1" | sort)" = "$2" ]; }

# settings NODE prints kernel settings that a director wants otherwise than found has them.
settings() { on "$1" sysctl -n net.ipv4.vs.{conn_reuse_mode,expire_nodest_conn} net.ipv4.conf.all.{arp_ignore,arp_announce} | xargs; }
found='1 0 0 1' wanted='3 1 1 2'
are() { [ "$(settings "$1")" = "$2" ]; }

measure() { start client requests lab client --every 50ms --timeout 1s "$LAB_VIP:80"; }
# served ends the measurement: the client was never without an answer for a third of the VIP's lease, which it would
# have to wait for had the VIP been dropped.
served() {
	stop client requests INT
	tail -n 8 "$LAB_LOGS/client.requests.log"
	[ "$(awk '$1 == "longest_gap_ms" { n = $2 } END { print n }' "$LAB_LOGS/client.requests.log")" -lt 10000 ]
}

# The cluster, and then vs and rs1 after a boot that starts none of our programs. A starved guest takes many seconds
# for a restart, within which the VIP's lease must not end.
cluster
for director in vs vs_bk; do
	on $director sh -c 'echo "vip: {lease: 30s}" >>/etc/lvstun/director.yaml; chmod 644 /etc/lvstun/director.yaml'
done
on vs sed -i /lvs-director/d /etc/lvstun/boot
on rs1 sed -i /lvs-agent/d /etc/lvstun/boot
on rs1 chmod 644 /etc/lvstun/agent.yaml
for node in vs vs_bk rs1; do
	crash $node
	boot $node
done
on rs1 sysctl -q net.ipv4.conf.all.rp_filter=1
on vs sysctl -q net.ipv4.vs.{conn_reuse_mode=1,expire_nodest_conn=0} net.ipv4.conf.all.{arp_ignore=0,arp_announce=1}
are vs "$found"
systemd vs
systemd rs1
booted vs
booted rs1

# Started means ready: what the service is for is there when systemctl returns.
wait_for $patience holder vs_bk
by vs systemctl start lvs-director
[ -n "$(table vs)" ]
are vs "$wanted"
wait_for $patience says 'up, heard' by vs lvs-director status
by rs1 systemctl start lvs-agent
wait_for $patience says 'tunnel side  right' by rs1 lvs-agent status
says " $LAB_VIP/32" on rs1 ip -o address show up dev tunl0
[ "$(on rs1 sysctl -n net.ipv4.conf.{all,eth0}.arp_{ignore,announce} net.ipv4.conf.tunl0.rp_filter | xargs)" = '1 2 1 2 2' ]
says "table inet lvstun" on rs1 nft list tables
confined vs lvs-director 3400 # NET_BIND_SERVICE, NET_ADMIN, NET_RAW
confined rs1 lvs-agent 1000   # NET_ADMIN

# A kernel setting that somebody changes is repaired, and counted.
on vs sysctl -q net.ipv4.conf.all.arp_announce=0
wait_for $patience are vs "$wanted"
wait_for $patience says '"drifts": 1,' by vs lvs-director status --json
says 'kernel setting had been changed, set again" key=net.ipv4.conf.all.arp_announce old=0 new=2' by vs journalctl --no-pager -u lvs-director

# A director alone is killed: it is back before the VIP's lease ends, and the table never lacks a server. So is an agent;
# the table may lack its server when a starved guest takes longer for it than the 3 s of its own lease.
wait_for $patience programmed vs "$full"
stop vs_bk director
wait_for $patience holder vs
start vs table sh -c 'while ipvsadm -S -n | grep -c .; do sleep 0.3; done'
measure
sleep 1
by vs systemctl kill -s KILL lvs-director
wait_for $patience restarted vs lvs-director 1
wait_for $patience holder vs
sleep 1
stop vs table
[ "$(sort -u "$LAB_LOGS/vs.table.log")" = 3 ]
are vs "$wanted"
by rs1 systemctl kill -s KILL lvs-agent
wait_for $patience restarted rs1 lvs-agent 1
wait_for $patience programmed vs "$full"
served

# The active director is stopped: it hands its VIP over, puts the kernel's settings back, and leaves its table for the
# next start. A start after a crash had not taken its own settings for those it found.
on vs_bk bash /etc/lvstun/boot
wait_for $patience says " standby for" on vs_bk lvs-director status
wait_for $patience programmed vs_bk "$full"
wait_for $patience programmed vs "$full"
measure
sleep 1
stopped vs lvs-director
holder vs_bk
are vs "$found"
programmed vs "$full"
by vs test -s /run/lvstun/director.services.json
by vs systemctl start lvs-director
programmed vs "$full"
are vs "$wanted"
by vs systemctl reload lvs-director
wait_for $patience says 'was reloaded' by vs journalctl --no-pager -u lvs-director
served

# Director and agent freeze: the watchdog ends them, and they are back.
by vs systemctl kill -s STOP lvs-director
by rs1 systemctl kill -s STOP lvs-agent
tight vs lvs-director # it takes a while
tight rs1 lvs-agent
wait_for $patience restarted vs lvs-director 1 # since it was started by hand
wait_for $patience restarted rs1 lvs-agent 2
says 'Watchdog timeout' by vs journalctl --no-pager -u lvs-director
says 'Watchdog timeout' by rs1 journalctl --no-pager -u lvs-agent

# The agent is stopped: it leaves the directors by its own word, not when its lease ends, and leaves its tunnel side.
wait_for $patience programmed vs_bk "$full"
stopped rs1 lvs-agent
wait_for $patience programmed vs_bk "$(sed 2d <<<"$full")"
says '"gone_reason": "left"' on vs_bk lvs-director status --json
says " $LAB_VIP/32" on rs1 ip -o address show up dev tunl0
