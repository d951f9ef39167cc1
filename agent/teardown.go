package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"lvstun/sysctl"
	"lvstun/tunnel"
	"lvstun/tunnel/guard"
)

// Undone is what a Teardown did.
type Undone struct {
	Changes []Change
	Left    []string // what was not put back because somebody else has changed it since, a sentence each
}

// Teardown puts the host back as it was before the first agent of this boot, also after a crash and a second
// time. While an agent runs, which the socket at path tells, it does nothing. The error holds all that could
// not be undone; to do it again is no harm.
func Teardown(ctx context.Context, path string) (Undone, error) {
	return teardown(ctx, path, undoing{
		tunnel: func(ctx context.Context) (tunnel.Report, error) {
			return tunnel.Undo(ctx, filepath.Join(folder, tunnelFile))
		},
		guard: guard.New().Remove,
		settings: func() sysctl.Report {
			return sysctl.Restore(sysctl.Proc, filepath.Join(folder, settingsFile), slog.New(slog.DiscardHandler))
		},
	})
}

// undoing is how each part is undone.
type undoing struct {
	tunnel   func(context.Context) (tunnel.Report, error)
	guard    func(context.Context) (removed bool, err error)
	settings func() sysctl.Report
}

// teardown holds the socket meanwhile, so that no agent begins. The guard and the settings outlast the VIPs:
// as long as there is one, nobody else may use the tunnel, and ARP must not tell of it.
func teardown(ctx context.Context, path string, undo undoing) (u Undone, err error) {
	l, err := listen(path)
	if err != nil {
		return u, fmt.Errorf("%w; nothing is undone while it runs: stop it first", err)
	}
	defer func() { err = errors.Join(err, release(l)) }()

	report, err := undo.tunnel(ctx)
	for _, c := range report.Changes {
		u.Changes = append(u.Changes, Change{What: c.What, Old: c.Old, New: c.New})
	}
	u.Left = report.Notes
	if err != nil {
		return u, fmt.Errorf("%w\nthe guard and the kernel settings stay until the tunnel side is undone: put that right and call again", err)
	}
	removed, err := undo.guard(ctx)
	if removed {
		u.Changes = append(u.Changes, Change{What: "nftables table " + guard.Name, Old: "present", New: "removed"})
	}
	settings := undo.settings()
	for _, c := range settings.Changes {
		u.Changes = append(u.Changes, Change{What: c.Key, Old: c.Old, New: c.New})
	}
	for _, left := range settings.Left {
		u.Left = append(u.Left, left.String())
	}
	for _, p := range settings.Problems {
		err = errors.Join(err, errors.New(p))
	}
	return u, err
}

func release(l net.Listener) error {
	if err := l.Close(); err != nil {
		return fmt.Errorf("give the socket free: %w", err)
	}
	return nil
}
