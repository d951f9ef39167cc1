# The classic LVS/TUN experiment, as its author published it, done with lvstun: every step is told and checked.
# $1 is "colour" on a terminal.

bold='' green='' red='' plain=''
[ "${1-}" != colour ] || bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
failures=0
examples=${LAB%/bin/*}/deploy/examples/seed
url=http://$LAB_VIP/

step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
tell() { printf '      %s\n' "$@"; }

# check SENTENCE CMD… is one thing that must hold.
check() {
	local what=$1 out
	shift
	if out=$("$@" 2>&1); then
		printf '%sPASS%s  %s\n' "$green" "$plain" "$what"
	else
		printf '%sFAIL%s  %s\n' "$red" "$plain" "$what"
		[ -z "$out" ] || sed 's/^/      /' <<<"$out"
		failures=$((failures + 1))
	fi
}

# page is what the client gets; pages N what it gets N times, one a line.
page() { on client curl -sS -f -m 2 "$url"; }
pages() { on client sh -c 'for i in $(seq "$0"); do curl -sS -f -m 2 "$1" || exit; done' "$1" "$url"; }

# only PAGE… holds when ten answers in a row show these pages and no other.
only() {
	local want got
	want=$(printf '%s\n' "$@" | sort)
	got=$(pages 10) || return
	got=$(sort -u <<<"$got")
	[ "$got" = "$want" ] || { printf 'the client gets:\n%s\n' "$got"; return 1; }
}

# both holds when many requests in a row find both servers and none fails. They must be many: wlc counts every request that
# a dead server left half open as an active connection for a minute, which outweighs 256 that are done.
both() {
	local got
	got=$(on client lab client --every 10ms --timeout 1s --for 4s "$LAB_VIP:80") || return
	[[ $got =~ failed\ 0.*rs1.yubo.org.*rs2.yubo.org ]] || { printf 'the client gets:\n%s\n' "$got"; return 1; }
}

# alternate holds when ten answers come from the two servers in turn.
alternate() {
	local got
	got=$(pages 10) || return
	[ "$(uniq <<<"$got" | wc -l)" = 10 ] && [ "$(sort -u <<<"$got" | wc -l)" = 2 ] || { printf 'the client gets:\n%s\n' "$got"; return 1; }
}

# holders prints the directors that have the VIP; the first is the active one.
holders() {
	local director
	for director in vs vs_bk; do
		case $(on "$director" ip -o address show 2>/dev/null) in *" $LAB_VIP/"*) echo "$director" ;; esac
	done
}
holds() { [ "$(holders)" = "$1" ] || { echo "the VIP is on: $(holders | xargs)"; return 1; }; }
one_holder() { [ "$(holders | wc -l)" = 1 ] || { echo "the VIP is on: $(holders | xargs)"; return 1; }; }
both_run() { on vs lvs-director status --json >/dev/null && on vs_bk lvs-director status --json >/dev/null; }

# measure TIMEOUT starts a new connection every 20 ms, each of which may take so long.
measure() { start client requests lab client --every 20ms --timeout "$1" "$LAB_VIP:80"; }
# measured NAME prints a number of the last measurement.
measured() { awk -v name="$1" '$1 == name { n = $2 } END { print n }' "$LAB_LOGS/client.requests.log"; }
put() { on "$1" sh -c 'mkdir -p "${0%/*}"; umask 077; cat >"$0"' "$2"; }

step "gw: the gateway forwards"
tell '[root@gw ~]# echo 1 > /proc/sys/net/ipv4/ip_forward'
on gw sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
check 'ip_forward is 1 on gw' on gw grep -qx 1 /proc/sys/net/ipv4/ip_forward
check 'the client reaches rs1 and rs2 through it' on client sh -c 'ping -q -c 1 -W 2 192.168.1.100 && ping -q -c 1 -W 2 192.168.1.200'

step "vs, vs_bk: two directors, each with its published lvs.cf, and one key between them"
on vs lvs-director keygen /etc/lvstun/cluster.key >/dev/null
on vs cat /etc/lvstun/cluster.key | put vs_bk /etc/lvstun/cluster.key
for director in vs vs_bk; do
	tell "[root@$director ~]# lvs-director run --config /etc/lvstun/lvs.cf    # also at every boot"
	put "$director" /etc/lvstun/lvs.cf <"$examples/$director.lvs.cf"
	put "$director" /etc/lvstun/boot <<<'start director lvs-director run --config /etc/lvstun/lvs.cf'
	on "$director" bash /etc/lvstun/boot
done
check 'both run' wait_for 15 both_run

step "rs1, rs2: a web server with its name as the page, and lvs-agent instead of ifconfig tunl0"
for rs in rs1:192.168.1.100 rs2:192.168.1.200; do
	address=${rs#*:} rs=${rs%:*}
	tell "[root@$rs ~]# echo \"$rs.yubo.org\" > /var/www/html/index.html"
	on vs lvs-director token --config /etc/lvstun/lvs.cf --name "$rs.yubo.com" --address "$address" --service HTTP 2>>"$LAB_LOGS/token.log" |
		put "$rs" /etc/lvstun/token
	put "$rs" /etc/lvstun/agent.yaml <<<'{directors: ["10.0.0.1:3637", "10.0.0.2:3637"], token_file: /etc/lvstun/token}'
	put "$rs" /var/lib/www/index.html <<<"$rs.yubo.org"
	put "$rs" /etc/lvstun/boot <<-'BOOT'
		start web busybox httpd -f -p 80 -h /var/lib/www
		start agent lvs-agent run --config /etc/lvstun/agent.yaml
	BOOT
	on "$rs" bash /etc/lvstun/boot
done

step "client: http://$LAB_VIP/"
check 'rs1 and rs2 answer at the VIP' wait_for 30 only rs1.yubo.org rs2.yubo.org
check 'exactly one director holds the VIP' one_holder
check 'the answers alternate between rs1.yubo.org and rs2.yubo.org' alternate
active=$(holders | head -n 1)
active=${active:-vs}
[ "$active" = vs ] && standby=vs_bk || standby=vs
tell "$(pages 4 2>&1 | xargs)"

step "$active, the active director: the table"
saved() { on "$active" lvs-director save; }
published() {
	local want got
	want=$(printf '%s\n' '-A -t 10.0.0.50:80 -s wlc' '-a -t 10.0.0.50:80 -r 192.168.1.100:80 -i -w 1' '-a -t 10.0.0.50:80 -r 192.168.1.200:80 -i -w 1')
	got=$(saved | sed 's/ --tun-type ipip//; s/ *$//' | sort)
	diff <(sort <<<"$want") <(echo "$got")
}
tell "[root@$active ~]# lvs-director save" "$(saved | sed '2,$s/^/      /')"
check 'it is the published one' published
check 'ipvsadm --save -n prints the same bytes' cmp <(saved) <(on "$active" ipvsadm --save -n)

step "$active crashes; the published configuration calls a director dead after 18 s"
measure 200ms
sleep 1
crash "$active"
check "$standby takes over" wait_for 40 holds "$standby"
check 'rs1 and rs2 answer again' wait_for 10 only rs1.yubo.org rs2.yubo.org
stop client requests INT
tell "the client's longest gap: $(measured longest_gap_ms) ms; $(measured failed) of $(measured requests) requests failed"
check 'the gap is at most deadtime, 18 s, and 3 s' test "$(measured longest_gap_ms)" -lt 21000

step "$active comes back: the directors are equals, and the VIP stays where it is"
measure 1s # a lost packet is sent again after one second, so none may be
boot "$active"
is_standby() { [[ $(on "$active" lvs-director status --json) =~ \"role\":\ ?\"standby\" ]]; }
check "$active is standby" wait_for 30 is_standby
sleep 2
check "only $standby holds the VIP" holds "$standby"
stop client requests INT
tell "$(measured requests) requests meanwhile, $(measured failed) failed; the longest gap: $(measured longest_gap_ms) ms"
check 'no request failed' test "$(measured failed)" = 0

step "rs1: the web server dies, and is started again"
stop rs1 web KILL
check 'only rs2 answers' wait_for 15 only rs2.yubo.org
on rs1 bash -c 'start web busybox httpd -f -p 80 -h /var/lib/www'
check 'rs1 answers again' wait_for 30 both

step "rs1: a reboot, and nobody touches it (the published rc.local)"
crash rs1
check 'only rs2 answers' wait_for 15 only rs2.yubo.org
boot rs1
check 'rs1 answers again' wait_for 30 both
check 'exactly one director holds the VIP' one_holder

echo
if ((failures > 0)); then
	printf '%sFAIL%s  %d of the checks failed\n' "$red" "$plain" "$failures"
	exit 1
fi
printf '%sPASS%s  all of it holds, after %d s\n' "$green" "$plain" "$SECONDS"
