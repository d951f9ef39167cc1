# Every way to lose a director, as the client sees it: crash, freeze, kill, cable, partition, handover, reload.
# The lab may be emulated and starved of its processor, so the lease is long enough for a restart and the bounds are
# wide: they tell a hole from none. The numbers are printed, and `make bench-failover` is where they count.

client=requests
measure() { start client $client lab client --every 25ms --timeout 1s "$LAB_VIP:80"; }
finish() { stop client $client INT; }
# measured NAME prints a number of the last measurement.
measured() { awk -v name="$1" '$1 == name { n = $2 } END { print n }' "$LAB_LOGS/client.$client.log"; }
tell() { printf '%-42s longest gap %4d ms, %d of %d requests failed\n' "$1" "$(measured longest_gap_ms)" "$(measured failed)" "$(measured requests)"; }

has_vip() { local addrs; addrs=$(on "$1" ip -o address show dev eth0); grep -qF " $LAB_VIP/" <<<"$addrs"; }
holders() { for d in vs vs_bk; do if has_vip "$d"; then echo "$d"; fi; done; }
held_by() { [ "$(holders | xargs)" = "$1" ] || { echo "the VIP is on: $(holders | xargs)"; return 1; }; }
role() { on "$1" lvs-director status --json | awk -F'"' '$2 == "role" && !n++ { print $4 }'; }
is() { [ "$(role "$1")" = "$2" ] || { echo "$1 is $(role "$1")"; return 1; }; }
pair_is() { held_by "$1" && is "$1" active && is "$2" standby; }
# roles sets active and standby from what is.
roles() {
	active=$(holders)
	case $active in vs) standby=vs_bk ;; vs_bk) standby=vs ;; *) echo "holders: $active" >&2; return 1 ;; esac
	wait_for 10 pair_is "$active" "$standby"
}
few_failures() { [ "$(measured failed)" -le 8 ] || { cat "$LAB_LOGS/client.$client.log"; return 1; }; }
shorter_than() { [ "$(measured longest_gap_ms)" -lt "$1" ] || { cat "$LAB_LOGS/client.$client.log"; return 1; }; }

cluster
for d in vs vs_bk; do
	on $d bash -c 'printf "%s\n" "sync: {device: eth0, id: 50}" "vip: {lease: 5s}" >>/etc/lvstun/director.yaml'
	stop $d director
	on $d bash /etc/lvstun/boot
done
one() { [ "$(holders | wc -l)" = 1 ]; }
wait_for 20 one
roles
serves() { on client curl -sS -f -m 1 "http://$LAB_VIP/"; }
wait_for 20 serves

# A download that began a second ago goes on, whatever becomes of the director it came through.
for rs in rs1 rs2; do on $rs bash -c 'yes "$(hostname)" | head -c 6000000 >/var/lib/www/long'; done
download() { start client download curl -sS -f --limit-rate 1M -o /run/long "http://$LAB_VIP/long"; sleep 1.5; }
downloaded() {
	wait_for 30 on client sh -c '! pgrep -x curl >/dev/null'
	[ "$(on client sh -c 'wc -c </run/long')" = 6000000 ] || { cat "$LAB_LOGS/client.download.log"; return 1; }
}

# The daemon and its host die.
download
measure
sleep 1
crash "$active"
wait_for 10 held_by "$standby"
sleep 1
finish
tell "crash of the active"
shorter_than 2500
downloaded
boot "$active"
measure
wait_for 10 pair_is "$standby" "$active"
sleep 1
finish
tell "and its return: the VIP stays"
few_failures

# The daemon freezes: the kernel forwards on until the lease ends, and there is one holder when it wakes up.
roles
measure
sleep 0.5
on "$active" pkill -STOP lvs-director
wait_for 10 held_by "$standby"
on "$active" pkill -CONT lvs-director
wait_for 10 pair_is "$standby" "$active"
sleep 0.5
finish
tell "freeze and thaw of the active"
shorter_than 2500

# Killed and restarted within the lease: nobody notices.
roles
measure
sleep 0.5
on "$active" pkill -KILL lvs-director
on "$active" bash /etc/lvstun/boot 2>/dev/null || on "$active" bash -c 'start again lvs-director run --config /etc/lvstun/director.yaml'
sleep 3
finish
tell "kill -9 and restart within the lease"
few_failures
held_by "$active"

# A planned handover, and back.
roles
download
measure
sleep 0.5
wait_for 10 on "$active" lvs-director handover # refused while the standby was not heard for a moment
wait_for 5 held_by "$standby"
wait_for 10 on "$active" lvs-director handover # asked by the standby now
wait_for 5 held_by "$active"
sleep 0.5
finish
tell "handover, and back"
few_failures
downloaded

# Only the heartbeat is cut: whoever answers for the VIP keeps it.
roles
measure
on "$standby" nft -f - <<'NFT'
table inet lab { chain in { type filter hook input priority 0; udp dport 539 drop; }; chain out { type filter hook output priority 0; udp dport 539 drop; }; }
NFT
sleep 4
held_by "$active"
on "$standby" lvs-director status | grep -E '^director' || true
on "$standby" nft delete table inet lab
wait_for 10 pair_is "$active" "$standby"
finish
tell "heartbeat cut while the LAN works"
few_failures

# One way: the standby does not hear the active.
measure
on "$standby" nft -f - <<'NFT'
table inet lab { chain in { type filter hook input priority 0; udp dport 539 drop; }; }
NFT
sleep 4
one
on "$standby" nft delete table inet lab
one
finish
tell "heartbeat lost one way"
few_failures

# The cable of the active is out and in again.
roles
measure
sleep 0.5
cut "$active"
wait_for 10 is "$standby" active
sleep 0.5
heal "$active"
wait_for 10 pair_is "$standby" "$active"
finish
tell "cable of the active out and in"
shorter_than 2500

# A reload under load: a VIP comes and goes, nothing else moves; a bad file changes nothing.
roles
measure
second=10.0.0.51
for d in vs vs_bk; do
	on $d bash -c 'cp /etc/lvstun/director.yaml /etc/lvstun/before; cat >>/etc/lvstun/director.yaml; pkill -HUP lvs-director' <<-'YAML'
		# a second service, put at the end of the list by hand
	YAML
	on $d bash -c "sed -i 's|^services:|services:\n  - {name: SECOND, vip: $second, device: eth0, port: 80, register: {from: [192.168.1.0/24]}}|' /etc/lvstun/director.yaml; pkill -HUP lvs-director"
done
second_up() { local a; a=$(on "$active" ip -o address show dev eth0); grep -qF " $second/" <<<"$a"; }
wait_for 5 second_up
for d in vs vs_bk; do on $d bash -c 'echo "nonsense: 1" >>/etc/lvstun/director.yaml; pkill -HUP lvs-director'; done
sleep 1
second_up
for d in vs vs_bk; do on $d bash -c 'cp /etc/lvstun/before /etc/lvstun/director.yaml; pkill -HUP lvs-director'; done
second_down() { ! second_up; }
wait_for 5 second_down
pair_is "$active" "$standby"
finish
tell "reloads: a VIP comes and goes"
few_failures

# Both at once, while a foreign host has the VIP: neither takes it, and both say whose MAC that is.
for d in vs vs_bk; do on $d pkill -KILL lvs-director; done
none() { [ -z "$(holders)" ]; }
wait_for 10 none
lan=$(on gw ip -o route get "$LAB_VIP" | sed 's/.* dev \([^ ]*\).*/\1/')
mac=$(on gw cat "/sys/class/net/$lan/address")
on gw ip address add "$LAB_VIP/32" dev "$lan"
for d in vs vs_bk; do on $d bash -c 'start both lvs-director run --config /etc/lvstun/director.yaml'; done
foreign() { on "$1" lvs-director status | grep -F "$LAB_VIP is held by $mac"; }
waits() { foreign vs || foreign vs_bk; }
wait_for 10 waits
sleep 1
none
on gw ip address delete "$LAB_VIP/32" dev "$lan"
wait_for 10 one
sleep 1
one
wait_for 10 serves >/dev/null
echo "both started at once, after a foreign host gave the VIP up: $(holders) holds it"
