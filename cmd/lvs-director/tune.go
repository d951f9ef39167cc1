package main

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"lvstun/director/config"
	"lvstun/director/ipvs"
	"lvstun/director/tuning"
	"lvstun/sysctl"
)

// tuneEvery is how often the kernel's settings are looked at, and so within what time a reload changes them.
const tuneEvery = time.Second

// A tuner keeps the kernel settings that the configuration in force wants.
type tuner struct {
	keeper *sysctl.Keeper
	wanted atomic.Pointer[[]sysctl.Setting] // replaced whole by follow
}

func newTuner(root sysctl.Tree, file string, log *slog.Logger) *tuner {
	return &tuner{keeper: sysctl.New(sysctl.Options{Root: root, File: file, Log: log})}
}

// follow goes over to what a configuration wants on a host with these addresses.
func (t *tuner) follow(cfg *config.Config, own []netip.Prefix) {
	settings := wantedSettings(cfg, own)
	t.wanted.Store(&settings)
}

// start sets the settings, and keeps them until stop is called. That puts back what they were.
func (t *tuner) start() (stop func()) {
	wanted := func() []sysctl.Setting { return *t.wanted.Load() }
	t.keeper.Apply(wanted())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.keeper.Run(ctx, tuneEvery, wanted)
	}()
	return func() {
		cancel()
		<-done
	}
}

// problems are why settings are not set, and those that do not serve.
func (t *tuner) problems() []string {
	report := t.keeper.Report()
	problems := slices.Clone(report.Problems)
	for _, f := range report.Findings {
		if !f.Serves() {
			problems = append(problems, f.String())
		}
	}
	return problems
}

func (t *tuner) drifts() uint64 { return t.keeper.Report().Drifts }

func wantedSettings(cfg *config.Config, own []netip.Prefix) []sysctl.Setting {
	settings := tuning.Wanted(facts(cfg, own))
	if cfg.Sysctls == config.AuditSysctls {
		for i := range settings {
			settings[i].Set = false
		}
	}
	return settings
}

// facts are what the wanted settings depend on. Of the real servers it knows those that are listed; a neighbour is one
// in a network of this host's.
func facts(cfg *config.Config, own []netip.Prefix) tuning.Facts {
	var f tuning.Facts
	seen := make(map[netip.Addr]bool)
	for _, s := range cfg.Services {
		f.Devices = append(f.Devices, s.Device)
		f.IPv4 = f.IPv4 || s.VIP.Is4()
		f.IPv6 = f.IPv6 || s.VIP.Is6()
		f.Schedulers = append(f.Schedulers, s.Scheduler)
		f.Persistent = f.Persistent || s.Persistent > 0
		for _, server := range s.Servers {
			switch near, here := on(own, server.Address); {
			case here:
				f.OwnServers = true
			case !near || seen[server.Address]:
			case server.Address.Is4():
				f.Neighbours4++
			default:
				f.Neighbours6++
			}
			seen[server.Address] = true
		}
		for _, from := range s.Register.From {
			f.OwnServers = f.OwnServers || slices.ContainsFunc(own, func(p netip.Prefix) bool { return from.Contains(p.Addr()) })
		}
	}
	slices.Sort(f.Devices)
	f.Devices = slices.Compact(f.Devices)
	if cfg.Sync.Device != "" {
		for _, s := range ipvs.SyncSettings() {
			f.Sync = append(f.Sync, sysctl.Setting{Key: s.Key, Value: s.Value, Why: s.Why, Severity: sysctl.Loss, Set: true})
		}
	}
	return f
}

// on tells whether an address is in one of these networks, and whether it is this host's own.
func on(own []netip.Prefix, a netip.Addr) (near, here bool) {
	for _, p := range own {
		near = near || p.Contains(a)
		here = here || p.Addr() == a
	}
	return near, here
}
