package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lvstun/sysctl"
	"lvstun/tunnel"
)

// parts are undone as told; done is in which order.
type parts struct {
	tunnel   tunnel.Report
	settings sysctl.Report
	guarded  bool
	errors   map[string]error
	done     []string
	during   func()
}

func (p *parts) undoing() undoing {
	return undoing{
		tunnel: func(context.Context) (tunnel.Report, error) {
			p.done = append(p.done, "tunnel")
			if p.during != nil {
				p.during()
			}
			return p.tunnel, p.errors["tunnel"]
		},
		guard: func(context.Context) (bool, error) {
			p.done = append(p.done, "guard")
			return p.guarded, p.errors["guard"]
		},
		settings: func() sysctl.Report {
			p.done = append(p.done, "settings")
			return p.settings
		},
	}
}

func TestTeardown(t *testing.T) {
	t.Parallel()
	full := func() *parts {
		return &parts{
			tunnel: tunnel.Report{
				Changes: []tunnel.Change{{What: "10.0.0.50/32 on tunl0", Old: "present", New: "removed"}},
				Notes:   []string{"tunl0: stays up"},
			},
			settings: sysctl.Report{
				Changes: []sysctl.Change{{Key: "net.ipv4.conf.all.arp_ignore", Old: "1", New: "0"}},
				Left:    []sysctl.Left{{Key: "net.ipv4.conf.all.arp_announce", Have: "1", Original: "0"}},
			},
			guarded: true,
		}
	}
	tests := []struct {
		name    string
		change  func(*parts)
		done    string
		changes []string
		left    int
		err     string
	}{
		{
			name: "all", done: "tunnel guard settings", left: 2,
			changes: []string{"10.0.0.50/32 on tunl0", "nftables table lvstun", "net.ipv4.conf.all.arp_ignore"},
		},
		{name: "nothing is left to do", change: func(p *parts) { *p = parts{} }, done: "tunnel guard settings"},
		{
			name: "a VIP stays: so do the guard and the ARP settings", change: func(p *parts) { p.errors = map[string]error{"tunnel": errors.New("tunl0: busy")} },
			done: "tunnel", changes: []string{"10.0.0.50/32 on tunl0"}, left: 1,
			err: "tunl0: busy\nthe guard and the kernel settings stay until the tunnel side is undone: put that right and call again",
		},
		{
			name: "the table and a setting stay", done: "tunnel guard settings", left: 2,
			change: func(p *parts) {
				p.guarded, p.errors = false, map[string]error{"guard": errors.New("guard: busy")}
				p.settings.Problems = []string{"/proc/sys is read-only here"}
			},
			changes: []string{"10.0.0.50/32 on tunl0", "net.ipv4.conf.all.arp_ignore"}, err: "guard: busy\n/proc/sys is read-only here",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := full()
			if tt.change != nil {
				tt.change(p)
			}
			socket := filepath.Join(t.TempDir(), "agent.sock")
			p.during = func() {
				if _, err := listen(socket); err == nil || !strings.Contains(err.Error(), "another lvs-agent is running") {
					t.Errorf("an agent can begin meanwhile: %v", err)
				}
			}
			u, err := teardown(t.Context(), socket, p.undoing())
			var changes []string
			for _, c := range u.Changes {
				changes = append(changes, c.What)
			}
			if diff := cmp.Diff(tt.changes, changes); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if got := strings.Join(p.done, " "); got != tt.done || len(u.Left) != tt.left {
				t.Errorf("undone %s, want %s; left %q", got, tt.done, u.Left)
			}
			if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the socket is left behind: %v", err)
			}
		})
	}
}

func TestTeardownBesideAnAgent(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := &parts{}
	if _, err := teardown(t.Context(), socket, p.undoing()); err == nil || !strings.Contains(err.Error(), "another lvs-agent is running on this host; nothing is undone") {
		t.Errorf("error %v", err)
	}
	if len(p.done) != 0 {
		t.Errorf("undone: %s", p.done)
	}
}
