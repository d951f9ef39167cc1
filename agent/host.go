package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"lvstun/sysctl"
	"lvstun/tunnel"
)

// change is one thing on the host that was not as wanted and now is.
type change struct{ what, old, new string }

// host is the kernel's side of the real server, as the main loop uses it.
type host interface {
	// apply brings the tunnel side of VIPs to what it should be, on a host whose own address is address.
	apply(ctx context.Context, vips []netip.Addr, address netip.Addr) (side, []change)
	// watch calls changed whenever something of it may have changed, until ctx ends.
	watch(ctx context.Context, changed func()) error
}

// kernelHost is the host's kernel, in the network namespace of this process.
type kernelHost struct{ tunnel *tunnel.Tunnel }

var _ host = kernelHost{}

func (kernelHost) watch(ctx context.Context, changed func()) error { return tunnel.Watch(ctx, changed) }

// apply sets the ARP settings before it adds a VIP: for a moment, or for good where they cannot be set,
// this host would otherwise answer ARP for a VIP on the directors' own network and take its traffic.
func (h kernelHost) apply(ctx context.Context, vips []netip.Addr, address netip.Addr) (side, []change) {
	s := side{applied: true, settings: true}
	var done []change
	var ipv4 bool
	for _, vip := range vips {
		ipv4 = ipv4 || vip.Is4()
	}
	set := func(settings []sysctl.Setting) bool {
		report, err := sysctl.Proc.Apply(ctx, settings)
		for _, c := range report.Changes {
			done = append(done, change{c.Key, strconv.Itoa(c.Old), strconv.Itoa(c.New)})
		}
		s.problems = append(s.problems, sentences(err)...)
		return err == nil
	}
	if ipv4 {
		device, found, err := tunnel.DeviceOf(address)
		if err == nil && !found {
			err = fmt.Errorf("no device of this host holds %s, the address in its token", address)
		}
		s.problems = append(s.problems, sentences(err)...)
		s.settings = err == nil
		if !set(arpSettings(device)) {
			s.settings = false
			return s, done
		}
	}
	report, err := h.tunnel.Apply(ctx, tunnel.Desired{VIPs: vips})
	for _, c := range report.Changes {
		done = append(done, change{c.What, c.Old, c.New})
	}
	s.held = report.Held
	s.problems = append(s.problems, sentences(err)...)
	if ipv4 && !set(tunnelSettings()) {
		s.settings = false
	}
	return s, done
}

// arpSettings keep the host from answering and asking ARP for VIPs on the device of its own address. The
// kernel takes the larger of the values of `all` and of the device ARP comes in on (inetdevice.h,
// IN_DEV_MAXCONF); on tunl0 they would do nothing, it has no ARP. For arp_ignore 2 and 8 do as well as
// 1, but 3 does not: it answers for any global address. With device "" only `all` is set.
func arpSettings(device string) []sysctl.Setting {
	var all []sysctl.Setting
	for _, d := range []string{"all", device} {
		if d != "" {
			all = append(all,
				sysctl.Setting{Key: "net/ipv4/conf/" + d + "/arp_ignore", Value: 1, Or: []int{2, 8}},
				sysctl.Setting{Key: "net/ipv4/conf/" + d + "/arp_announce", Value: 2})
		}
	}
	return all
}

// tunnelSettings let packets out of the tunnel in: their source is the client, the way to which is not
// through tunl0. The kernel refuses them only if the larger of rp_filter on `all` and on tunl0 is
// exactly 1, strict (net/ipv4/fib_frontend.c). So 2, loose, on tunl0 is right whatever `all` holds, and
// `all` need not be weakened for the other devices. Loose asks for some route back to the client, and a
// real server that answers it has one.
func tunnelSettings() []sysctl.Setting {
	return []sysctl.Setting{{Key: "net/ipv4/conf/tunl0/rp_filter", Value: 2}}
}

// sentences are the lines of an error that joins several.
func sentences(err error) []string {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}
