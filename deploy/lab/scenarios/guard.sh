# The guard and teardown of a real server: what somebody else puts into the tunnel is refused and counted, what the
# directors put there is served; a flushed ruleset is repaired; teardown leaves the host as it was before the agent.

fails() { if "$@" >/dev/null 2>&1; then echo "should have failed: $*" >&2; return 1; fi; }
patience=30

# state NODE is all of a node that the agent may change.
state() {
	on "$1" sh -c '
		ip -o link; ip -o address; ip route show table all; ip -6 route show table all; ip rule; nft list ruleset
		sysctl -a 2>/dev/null | grep -E "^net\.ipv[46]\.conf\."'
}
# The first time a device is up, the kernel gives it a queue and IPv6 settings, and leaves them there.
on rs1 sh -c 'ip link set tunl0 up; ip link set tunl0 down'
settled() { [ -z "$(on rs1 ip -6 address show tentative)" ]; }
wait_for 10 settled
before=$(state rs1)

cluster
serves() { on client curl -sS -f -m 2 "http://$LAB_VIP/"; }
both() {
	local got
	got=$(on client lab client --every 20ms --timeout 1s --for 3s "$LAB_VIP:80") || return
	[ "$(awk '$1 == "answer" { n++ } END { print n }' <<<"$got")" = 2 ] || { echo "$got"; return 1; }
}
wait_for $patience both
guarded() { on rs1 nft list table inet lvstun; }
grep -q "$LAB_VIP" <<<"$(guarded)"

# refused prints how many packets a counter of rs1 holds.
refused() { on rs1 lvs-agent status --json | awk -F'[:,]' -v name="\"$1\"" '$1 ~ name { print $2 + 0 }'; }
[ "$(refused not_from_directors)" = 0 ]
[ "$(refused decapsulated)" -gt 0 ]

# The client wraps marked packets for the VIP itself and sends them to rs1; the answers come unwrapped.
on client sh -ec '
	ip tunnel add spoof mode ipip local "$(hostname -I | cut -d " " -f 1)" remote 192.168.1.100
	ip link set spoof up
	ip rule add fwmark 77 table 77
	ip route add default dev spoof table 77'
spoof() { on client ping -q -c 3 -i 0.2 -W 1 -m 77 "$LAB_VIP"; }
fails spoof
counted() { [ "$(refused not_from_directors)" = 3 ] || { on rs1 lvs-agent status; return 1; }; }
wait_for 5 counted
wait_for 5 grep -q 'the guard refused packets of tunnels.*3 not_from_directors' "$LAB_LOGS/rs1.agent.log"
grep -q '^guard  *3 packets refused' <<<"$(on rs1 lvs-agent status)"
wait_for 5 both

# Somebody takes all rules away.
on rs1 nft flush ruleset
wait_for 5 guarded
fails spoof
[ "$(refused not_from_directors)" = 6 ]
grep -q 'tunnel side repaired.*nftables table lvstun.*old=missing' "$LAB_LOGS/rs1.agent.log"
wait_for 5 both

# Without a guard, rs1 would have taken it: the refusals above are the guard's.
fails on rs1 lvs-agent teardown
stop rs1 agent
on rs1 nft delete table inet lvstun
spoof
on rs1 bash -c 'start agent lvs-agent run --config /etc/lvstun/agent.yaml'
wait_for $patience guarded
wait_for $patience both
fails spoof

# teardown, once the agent has stopped; a second one finds nothing.
stop rs1 agent
on rs1 lvs-agent teardown
diff <(echo "$before") <(state rs1)
[ "$(on rs1 lvs-agent teardown)" = "nothing of the agent's is on this host" ]
only_rs2() { [ "$(serves)" = "$(on rs2 cat /var/lib/www/index.html)" ]; }
wait_for 10 only_rs2

# And a new agent builds it all again.
on rs1 bash -c 'start agent lvs-agent run --config /etc/lvstun/agent.yaml'
wait_for $patience both
