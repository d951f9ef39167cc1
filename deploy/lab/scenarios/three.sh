# A whole cluster on other addresses: three real servers answer, and after its boot a crashed one does again.
# topology: three.yaml

cluster
seen() { on user sh -c 'for i in 1 2 3 4 5 6; do curl -sf -m 2 "$0" || exit; done' "http://$LAB_VIP/" | sort -u | xargs; }
[ "$(seen)" = 's1 s2 s3' ]
shows() { [ "$(seen)" = "$1" ]; }
crash s2
wait_for 15 shows 's1 s3'
boot s2
wait_for 15 shows 's1 s2 s3'
