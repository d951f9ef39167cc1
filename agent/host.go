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
	"lvstun/tunnel/guard"
)

// change is one thing on the host that was not as wanted and now is.
type change struct{ what, old, new string }

// host is the kernel's side of the real server, as the main loop uses it.
type host interface {
	// apply brings the tunnel side to what it should be: receivers, and a guard that lets only the directors
	// use them.
	apply(ctx context.Context, receivers []tunnel.Receiver, directors []netip.Addr, address netip.Addr) (side, []change)
	// watchers call changed whenever something of it may have changed, until ctx ends.
	watchers() []watcher
}

type watcher func(ctx context.Context, changed func()) error

// Where the originals of what the agent changes are recorded, below folder. Like the changes they end with
// the boot.
const (
	folder       = "/run/lvstun"
	settingsFile = "agent.sysctl.json"
	tunnelFile   = "agent.tunnel.json"
)

// kernelHost is the host's kernel, in the network namespace of this process.
type kernelHost struct {
	tunnel   *tunnel.Tunnel
	settings *sysctl.Keeper
	guard    *guard.Guard
}

var _ host = kernelHost{}

// newKernelHost makes one that records in the folder what it changes. The main loop logs the changes.
func newKernelHost(folder string) kernelHost {
	return kernelHost{
		tunnel.New(filepath.Join(folder, tunnelFile)),
		sysctl.New(sysctl.Options{File: filepath.Join(folder, settingsFile), Log: slog.New(slog.DiscardHandler)}),
		guard.New(),
	}
}

func (kernelHost) watchers() []watcher { return []watcher{tunnel.Watch, guard.Watch} }

// apply has the guard in place before a VIP and before a new director's packets. Without a guard, as on a
// host without nftables, the rest is done: it serves as it did before there was one.
func (h kernelHost) apply(ctx context.Context, receivers []tunnel.Receiver, directors []netip.Addr, address netip.Addr) (side, []change) {
	device, found, err := tunnel.DeviceOf(address)
	if err == nil && !found {
		err = fmt.Errorf("no device of this host holds %s, the address in its token", address)
	}
	guarded, done := h.protect(ctx, guardOf(receivers, directors, mtuOf(device)))
	s, changes := h.receive(ctx, receivers, device, err)
	s.guard = guarded
	if guarded.problem != "" {
		s.problems = append(s.problems, guarded.problem)
	}
	return s, append(done, changes...)
}

func (h kernelHost) protect(ctx context.Context, desired guard.Desired) (guardSide, []change) {
	report, err := h.guard.Apply(ctx, desired)
	if err != nil {
		return guardSide{problem: strings.Join(sentences(err), "; ")}, nil
	}
	var done []change
	for _, c := range report.Changes {
		done = append(done, change{c.What, c.Old, c.New})
	}
	return guardSide{counters: report.Counters}, done
}

// receive sets the ARP settings before it adds a VIP: for a moment, or for good where they cannot be set,
// this host would otherwise answer ARP for a VIP on the directors' own network and take its traffic. The
// device is the one of the own address; noDevice says why there is none.
func (h kernelHost) receive(ctx context.Context, receivers []tunnel.Receiver, device string, noDevice error) (side, []change) {
	s := side{applied: true, problems: sentences(noDevice)}
	var arp []sysctl.Setting
	if slices.ContainsFunc(receivers, func(r tunnel.Receiver) bool { return r.VIP.Is4() }) {
		arp = arpSettings(device)
	}
	settings := slices.Concat(arp, tunnelSettings(receivers))
	before := h.settings.Apply(settings)
	done := settingChanges(before)
	if failing := unserved(before.Findings[:len(arp)]); len(failing) > 0 {
		s.problems = slices.Concat(s.problems, before.Problems, failing)
		return s, done
	}
	report, err := h.tunnel.Apply(ctx, tunnel.Desired{Receivers: receivers})
	for _, c := range report.Changes {
		done = append(done, change{c.What, c.Old, c.New})
	}
	after := h.settings.Apply(settings) // once more: only now there must be the tunnels' devices
	done = append(done, settingChanges(after)...)
	s.problems = slices.Concat(s.problems, sentences(err), report.Alarms, after.Problems, unserved(after.Findings))
	serves := map[string]bool{}
	for i, f := range after.Findings {
		serves[settings[i].Key] = f.Serves()
	}
	for _, r := range report.Held {
		if serves[tunnelSetting(r).Key] && (noDevice == nil || !r.VIP.Is4()) {
			s.held = append(s.held, r)
		}
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

// tunnelSettings are those of the devices that the receivers' packets come out of, each once.
func tunnelSettings(receivers []tunnel.Receiver) []sysctl.Setting {
	var all []sysctl.Setting
	for _, r := range receivers {
		s := tunnelSetting(r)
		if !slices.ContainsFunc(all, func(o sysctl.Setting) bool { return o.Key == s.Key }) {
			all = append(all, s)
		}
	}
	return all
}

// tunnelSetting lets what comes out of the receiver's device in. The source of an IPv4 packet there is the
// client, the way to which is not through that device. The kernel refuses it only if the larger of
// rp_filter on `all` and on the device is exactly 1, strict (net/ipv4/fib_frontend.c). So 2, loose, on the
// device is right whatever `all` holds, and `all` need not be weakened for the other devices. Loose asks
// for some route back to the client, and a real server that answers it has one. For IPv6 there is no such
// filter, but IPv6 may be disabled on the device.
func tunnelSetting(r tunnel.Receiver) sysctl.Setting {
	if r.VIP.Is6() {
		return sysctl.Setting{Key: "net/ipv6/conf/" + r.Device() + "/disable_ipv6", Value: "0", Severity: sysctl.Loss, Set: true,
			Why: "a device without IPv6 has no IPv6 address and takes no packet (ip-sysctl.rst)"}
	}
	return sysctl.Setting{Key: "net/ipv4/conf/" + r.Device() + "/rp_filter", Value: "2", Severity: sysctl.Loss, Set: true,
		Why: "the kernel drops what comes out of the tunnel, as the way back to the client is not through " + r.Device() + " (ip-sysctl.rst)"}
}

// sentences are the lines of an error that joins several.
func sentences(err error) []string {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}
