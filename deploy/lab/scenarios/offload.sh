# Where a network's offload is off, every packet on it fits its MTU, as on a wire.
# topology: three.yaml

[ "$(on s1 cat /sys/class/net/eth0/mtu)" = 1400 ]
on s1 sh -c 'mkdir -p /run/www; head -c 2000000 /dev/zero >/run/www/index.html'
start s1 web busybox httpd -f -p 80 -h /run/www
start user longer tcpdump -ni eth0 -c 1 'len > 1414'
start user any tcpdump -ni eth0 -c 1 'len == 1414'
wait_for 5 grep -q listening "$LAB_LOGS/user.longer.log"
wait_for 5 grep -q listening "$LAB_LOGS/user.any.log"
[ "$(on user curl -sf -m 10 http://172.20.5.21/ | wc -c)" = 2000000 ]
wait_for 5 grep -q '1 packet captured' "$LAB_LOGS/user.any.log"
stop user longer INT
grep -q '^0 packets captured' "$LAB_LOGS/user.longer.log"
