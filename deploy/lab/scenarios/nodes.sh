# What scripts may rely on: addresses, isolation, names, cables, crashes and boots. Only the distribution's tools.

fails() { if "$@" >/dev/null 2>&1; then echo "should have failed: $*" >&2; return 1; fi; }

# Addresses and routes.
on client ping -c 1 -W 2 192.168.1.200
[ "$(on vs hostname)" = vs ]
[ "$(on gw cat /proc/sys/net/ipv4/ip_forward)" = 1 ]
[ "$(on vs cat /proc/sys/net/ipv4/ip_forward)" = 0 ]
on rs1 ip link show tunl0
on vs ipvsadm -A -t "$LAB_VIP:80" -s wlc
fails on vs_bk ipvsadm -S -n -t "$LAB_VIP:80"

# Each node has its own disk, /run, processes and devices.
on rs1 sh -c 'echo rs1 >/etc/lvstun/note; echo rs1 >/var/lib/note; echo rs1 >/run/note'
fails on rs2 cat /etc/lvstun/note
fails on rs2 cat /var/lib/note
[ "$(on rs1 cat /proc/1/comm)" = lab ]
on gw test -d /sys/class/net/eth1
fails on client test -d /sys/class/net/eth1

# Status, standard files and signals pass through.
status=0; on client sh -c 'exit 7' || status=$?; [ "$status" = 7 ]
status=0; on client sh -c 'kill -9 $$' || status=$?; [ "$status" = 137 ]
[ "$(echo hello | on client cat)" = hello ]
fails on nobody true

# Named processes.
start rs1 web busybox httpd -f -p 80 -h /etc
on client curl -sf -m 2 http://192.168.1.100/lvstun/note
fails start rs1 web true
stop rs1 web
fails on client curl -sf -m 2 http://192.168.1.100/
fails stop rs1 web
start rs1 stubborn bash -c 'trap "echo bye; exit" USR1; while :; do sleep 0.1; done'
sleep 0.5
stop rs1 stubborn USR1
grep -q bye "$LAB_LOGS/rs1.stubborn.log"

# Cables.
mac=$(on rs1 cat /sys/class/net/eth0/address)
cut rs1
wait_for 5 on rs1 grep -q 0 /sys/class/net/eth0/carrier
fails on client ping -c 1 -W 1 192.168.1.100
heal rs1 eth0
wait_for 5 on client ping -c 1 -W 1 192.168.1.100
cut gw eth0
wait_for 5 on gw grep -q 0 /sys/class/net/eth0/carrier
on gw grep -q 1 /sys/class/net/eth1/carrier
heal gw eth0
fails cut gw eth7

# A crash: nothing runs, nothing answers; a boot: the disk is there, the rest is new, and the boot file has run.
on rs1 tee /etc/lvstun/boot <<<'start web busybox httpd -f -p 80 -h /var/lib' >/dev/null
on rs1 sysctl -qw net.ipv4.conf.all.arp_ignore=1
start rs1 sleeper sleep 1000
crash rs1
fails on rs1 true
fails crash rs1
fails on client ping -c 1 -W 1 192.168.1.100
boot rs1
fails boot rs1
[ "$(on rs1 cat /etc/lvstun/note)" = rs1 ]
fails on rs1 cat /run/note
[ "$(on rs1 cat /proc/sys/net/ipv4/conf/all/arp_ignore)" = 0 ]
[ "$(on rs1 cat /sys/class/net/eth0/address)" = "$mac" ]
fails on rs1 pgrep sleep
[ "$(wait_for 5 on client curl -sf -m 2 http://192.168.1.100/note && on client curl -sf -m 2 http://192.168.1.100/note)" = rs1 ]
stop rs1 web

# wait_for gives up and says what it waited for.
message=$(wait_for 1 sh -c 'echo not yet; exit 3' 2>&1) && exit 1
grep -q 'still failing after 1 s: sh -c' <<<"$message"
grep -q 'it last said: not yet' <<<"$message"
