// Package vip holds virtual IPs on their devices under a kernel lease,
// announces them to the neighbours, and asks the neighbours who has them.
package vip

import (
	"fmt"
	"net/netip"
)

// MaxLabel is the longest address label the kernel keeps, in bytes
// (IFNAMSIZ less the terminating zero).
const MaxLabel = 15

// VIP is one virtual IP and the place it is held at.
type VIP struct {
	Addr   netip.Addr // IPv4 or IPv6, without a zone
	Device string     // "eth0"
	Label  string     // "eth0:1" or empty; IPv4 only, at most MaxLabel bytes
}

func (v VIP) String() string {
	where := v.Device
	if v.Label != "" {
		where = v.Label
	}
	return fmt.Sprintf("%s on %s", v.Addr, where)
}
