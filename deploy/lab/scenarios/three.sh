# A whole cluster on other addresses: three real servers answer, and after its boot a crashed one does again.
# topology: three.yaml

# shows PAGE… holds when many requests find these pages and no other. They must be many: wlc counts what a dead server
# left half open as active connections for a minute.
shows() {
	local got
	got=$(on user lab client --every 10ms --timeout 1s --for 3s "$LAB_VIP:80") || return
	[ "$(awk '$1 == "answer" { print $3 }' <<<"$got" | xargs)" = "$*" ] || { echo "$got"; return 1; }
}

cluster
wait_for 10 shows s1 s2 s3
crash s2
wait_for 20 shows s1 s3
boot s2
wait_for 40 shows s1 s2 s3
