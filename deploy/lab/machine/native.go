package machine

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"lvstun/deploy/lab/box"
)

// Service is the lab's hidden command that calls Serve with its standard input as the channel.
const Service = "service"

// lacking says in a clause why the running kernel, as its /proc shows it, does not serve the lab; "" where it does.
func lacking(proc string) string {
	if _, err := os.Stat(filepath.Join(proc, "net/ip_vs")); err != nil {
		return "this kernel has no IPVS"
	}
	devices, err := os.ReadFile(filepath.Join(proc, "net/dev"))
	if err != nil || !strings.Contains(string(devices), " tunl0:") {
		return "this kernel has no IPIP"
	}
	only, err := os.ReadFile(filepath.Join(proc, "sys/net/core/fb_tunnels_only_for_init_net"))
	if err == nil && strings.TrimSpace(string(only)) != "0" {
		return "this kernel gives tunl0 to the host alone (fb_tunnels_only_for_init_net)"
	}
	return ""
}

// startNative makes a machine out of a box.
func startNative(self string) (*Machine, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "channel"), os.NewFile(uintptr(pair[1]), "channel")
	defer ours.Close() // FileConn has its own
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	b, err := box.Start(self, box.Spec{Argv: []string{self, Service}}, os.Environ(), theirs, os.Stderr, os.Stderr)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	theirs.Close()
	err = b.Go()
	if err == nil {
		m := &Machine{
			Shared: true, stop: func() error { b.Kill(); return nil },
			gone: b.Done(), lastWords: func() string { return "" },
		}
		if m.session, err = greet(conn); err == nil {
			return m, nil
		}
	}
	b.Kill()
	return nil, fmt.Errorf("namespaces: %w", err)
}
