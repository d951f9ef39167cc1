package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
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

// settingsFile is where the originals of what the agent sets are recorded. Like the settings it ends with the boot.
const settingsFile = "/run/lvstun/agent.sysctl.json"

// kernelHost is the host's kernel, in the network namespace of this process.
type kernelHost struct {
	tunnel   *tunnel.Tunnel
	settings *sysctl.Keeper
}

var _ host = kernelHost{}

// newKernelHost makes one that records in file what it sets. The main loop logs the changes.
func newKernelHost(file string) kernelHost {
	return kernelHost{tunnel.New(filepath.Join(filepath.Dir(file), "agent.tunnel.json")), sysctl.New(sysctl.Options{File: file, Log: slog.New(slog.DiscardHandler)})}
}

func (kernelHost) watch(ctx context.Context, changed func()) error { return tunnel.Watch(ctx, changed) }

// apply sets the ARP settings before it adds a VIP: for a moment, or for good where they cannot be set,
// this host would otherwise answer ARP for a VIP on the directors' own network and take its traffic.
func (h kernelHost) apply(ctx context.Context, vips []netip.Addr, address netip.Addr) (side, []change) {
	s := side{applied: true, settings: true}
	var done []change
	var settings []sysctl.Setting
	if slices.ContainsFunc(vips, netip.Addr.Is4) {
		device, found, err := tunnel.DeviceOf(address)
		if err == nil && !found {
			err = fmt.Errorf("no device of this host holds %s, the address in its token", address)
		}
		s.problems = append(s.problems, sentences(err)...)
		s.settings = err == nil
		arp := arpSettings(device)
		settings = slices.Concat(arp, tunnelSettings())
		report := h.settings.Apply(settings)
		done = append(done, settingChanges(report)...)
		if failing := unserved(report.Findings[:len(arp)]); len(failing) > 0 {
			s.problems, s.settings = slices.Concat(s.problems, report.Problems, failing), false
			return s, done
		}
	}
	var desired tunnel.Desired
	for _, vip := range vips {
		desired.Receivers = append(desired.Receivers, tunnel.Receiver{VIP: vip, RIP: address, Type: tunnel.IPIP})
	}
	report, err := h.tunnel.Apply(ctx, desired)
	for _, c := range report.Changes {
		done = append(done, change{c.What, c.Old, c.New})
	}
	for _, r := range report.Held {
		s.held = append(s.held, r.VIP)
	}
	s.problems = slices.Concat(s.problems, sentences(err), report.Alarms)
	if len(settings) > 0 { // once more: only now there must be a tunl0
		report := h.settings.Apply(settings)
		done = append(done, settingChanges(report)...)
		failing := unserved(report.Findings)
		s.problems = slices.Concat(s.problems, report.Problems, failing)
		s.settings = s.settings && len(failing) == 0
	}
	return s, done
}

func settingChanges(report sysctl.Report) []change {
	var done []change
	for _, c := range report.Changes {
		done = append(done, change{c.Key, c.Old, c.New})
	}
	return done
}

// unserved says which settings are not as wanted.
func unserved(findings []sysctl.Finding) []string {
	var failing []string
	for _, f := range findings {
		if !f.Serves() {
			failing = append(failing, f.String())
		}
	}
	return failing
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
				sysctl.Setting{Key: "net/ipv4/conf/" + d + "/arp_ignore", Value: "1", Or: []string{"2", "8"}, Severity: sysctl.Loss, Set: true,
					Why: "this host must not answer ARP for a VIP, which is a director's (ip-sysctl.rst)"},
				sysctl.Setting{Key: "net/ipv4/conf/" + d + "/arp_announce", Value: "2", Severity: sysctl.Loss, Set: true,
					Why: "this host must not ask ARP in a VIP's name: its neighbours would learn the VIP here (ip-sysctl.rst)"})
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
	return []sysctl.Setting{{Key: "net/ipv4/conf/tunl0/rp_filter", Value: "2", Severity: sysctl.Loss, Set: true,
		Why: "the kernel drops what comes out of the tunnel, as the way back to the client is not through tunl0 (ip-sysctl.rst)"}}
}

// sentences are the lines of an error that joins several.
func sentences(err error) []string {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}
