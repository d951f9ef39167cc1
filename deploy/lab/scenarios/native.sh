# Where the kernel has IPVS, as here, the lab needs no guest: it runs in namespaces, and takes them away again.

boxes() { pgrep -fc "^$LAB box " || true; }
inner=$(mktemp)
echo 'on client ping -q -c 1 -W 2 10.0.0.1; start vs web busybox httpd -f -p 80; echo "$LAB_VIP"; exit 3' >"$inner"
before=$(boxes)
status=0
said=$("$LAB" run "$inner" 2>&1) || status=$?
[ "$status" = 3 ]
grep -q 'the lab runs on it, in namespaces' <<<"$said"
grep -qx "$LAB_VIP" <<<"$said"
[ "$(boxes)" = "$before" ]
ip link show front # the outer lab's bridge is still there
