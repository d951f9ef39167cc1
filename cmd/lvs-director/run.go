package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"lvstun/director"
	"lvstun/director/api"
	"lvstun/director/config"
	"lvstun/director/ipvs"
	"lvstun/director/pair"
	"lvstun/director/trust"
	"lvstun/director/vip"
	"lvstun/sysctl"
)

func runCommand() *cobra.Command {
	var path, format, keyFile, socket string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Be a director until told to stop",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			load := func() (*config.Config, error) {
				cfg, err := loadConfig(path, format, cmd.ErrOrStderr())
				if err == nil && keyFile != "" {
					cfg.ClusterKeyFile = keyFile
				}
				return cfg, err
			}
			cfg, err := load()
			if err != nil {
				return err
			}
			return serve(cmd.Context(), cfg, load, socket, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&path, "config", defaultConfig, "director.yaml, or a file named lvs.cf")
	cmd.Flags().StringVar(&keyFile, "cluster-key", "", "the cluster key file (default: the configuration's, or "+defaultKey+")")
	cmd.Flags().StringVar(&socket, "socket", defaultSocket, "the Unix socket for `lvs-director status`")
	formatFlag(cmd, &format)
	return cmd
}

// A task is a part of the director that runs until its context ends.
type task interface {
	Run(context.Context) error
	Ready() <-chan struct{}
}

// serve wires the parts together and runs them. The first to fail stops all:
// the service manager starts a fresh process, which adopts the kernel's table.
func serve(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), socket string, logTo io.Writer) error {
	log := slog.New(slog.NewTextHandler(logTo, nil))
	own, err := localize(cfg)
	if err != nil {
		return err
	}
	key, err := trust.ReadKeyFile(cfg.ClusterKeyFile)
	if err != nil {
		return err
	}
	identity, err := key.ServerTLS()
	if err != nil {
		return err
	}
	kernel, err := ipvs.Open()
	if err != nil {
		return err
	}
	defer kernel.Close()
	if err := os.MkdirAll(runFolder, 0o755); err != nil {
		return fmt.Errorf("make the folder for the socket: %w", err)
	}

	// The kernel's settings come before everything that depends on them, the sync daemon too, which reads some of them
	// at its start, and go after it.
	tuner := newTuner(sysctl.Proc, settingsFile, log)
	tuner.follow(cfg, own)
	defer tuner.start()()

	group, ctx := errgroup.WithContext(ctx)
	pairCfg := pairConfig(cfg, key)
	problems := tuner.problems
	if cfg.Sync.Device != "" {
		connSync := director.NewConnSync(kernel, cfg.Sync.Device, cfg.Sync.ID, log)
		pairCfg.OnRole, pairCfg.OnHandover, pairCfg.OnPeer = connSync.Follow, connSync.Flush, connSync.PeerArrived
		problems = func() []string { return slices.Concat(connSync.Problems(), tuner.problems()) }
		group.Go(func() error { return connSync.Run(ctx) })
	}
	var core *director.Director // made below, before anything asks
	pairCfg.AskWitnesses = func(ctx context.Context) pair.WitnessReport { return core.AskWitnesses(ctx) }
	two, err := pair.New(pairCfg, log)
	if err != nil {
		return err
	}
	core = director.New(director.Options{
		Config: cfg, Kernel: kernel, Pair: two, Problems: problems, Drifts: tuner.drifts, WitnessKey: key.WitnessKey,
		Source: ipvs.Source, OwnedFile: ownedFile, Version: version, Log: log,
	})
	server := api.New(api.Config{
		Listen: cfg.API, Socket: socket, Web: cfg.Web, TLS: identity, Tokens: key, Backend: core,
	}, log)

	tasks := []task{core, two, server}
	for _, t := range tasks {
		group.Go(func() error { return t.Run(ctx) })
	}
	group.Go(func() error { return supervise(ctx, tasks, core.Turned, log) })
	r := reloader{cfg: cfg, load: load, key: key, pair: two, core: core, tuner: tuner, log: log}
	group.Go(func() error { return r.run(ctx) })
	return group.Wait()
}

// supervise tells the service manager when every part is ready, and from then
// on that the reconcile loop turns. A loop that stands still for a whole
// watchdog interval lets the watchdog bite.
func supervise(ctx context.Context, tasks []task, turned func() time.Time, log *slog.Logger) error {
	for _, t := range tasks {
		select {
		case <-t.Ready():
		case <-ctx.Done():
			return nil
		}
	}
	log.Info("ready")
	if err := notify(daemon.SdNotifyReady); err != nil {
		return err
	}
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read the watchdog interval of the service manager: %w", err)
	}
	if interval == 0 {
		<-ctx.Done()
		return notify(daemon.SdNotifyStopping)
	}
	ping := time.NewTicker(interval / 3)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return notify(daemon.SdNotifyStopping)
		case <-ping.C:
			if time.Since(turned()) < interval {
				if err := notify(daemon.SdNotifyWatchdog); err != nil {
					return err
				}
			}
		}
	}
}

func notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("tell the service manager %s: %w", state, err)
	}
	return nil
}

func pairConfig(cfg *config.Config, key trust.ClusterKey) pair.Config {
	out := pair.Config{
		Name: cfg.Name, Key: key.HeartbeatKey(), Port: cfg.Heartbeat.Port,
		Interval: cfg.Heartbeat.Interval, Dead: cfg.Heartbeat.Dead, Lease: cfg.VIPLease,
	}
	for _, p := range cfg.Heartbeat.Paths {
		out.Paths = append(out.Paths, pair.Path{Local: p.Local, Peer: p.Peer})
	}
	for _, p := range cfg.Parts() {
		out.Parts = append(out.Parts, pair.Part{Name: p.Name, Digest: p.Digest})
	}
	seen := make(map[netip.Addr]bool)
	for _, s := range cfg.Services {
		if !seen[s.VIP] {
			seen[s.VIP] = true
			out.VIPs = append(out.VIPs, vip.VIP{Addr: s.VIP, Device: s.Device, Label: s.Label})
		}
	}
	return out
}

// localize turns the heartbeat paths to this host's side. It returns this host's addresses with their networks.
func localize(cfg *config.Config) ([]netip.Prefix, error) {
	own, err := ownAddresses()
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, len(own))
	for i, p := range own {
		addrs[i] = p.Addr()
	}
	return own, cfg.Localize(addrs)
}

func ownAddresses() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read this host's addresses: %w", err)
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				bits, _ := n.Mask.Size()
				out = append(out, netip.PrefixFrom(ip.Unmap(), bits))
			}
		}
	}
	return out, nil
}
