package box

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Main is process 1 of a box: arg is the Spec that Start encoded. It returns the status to exit with.
func Main(arg string) int {
	start, ready := os.NewFile(3, "start"), os.NewFile(4, "ready")
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	var spec Spec
	err := json.Unmarshal([]byte(arg), &spec)
	if err == nil {
		err = furnish(spec)
	}
	if err != nil {
		fmt.Fprint(ready, err)
		return 1
	}
	ready.Close()
	io.Copy(io.Discard, start) // until Go
	start.Close()
	return Init(spec.Argv, os.Stdin, spec.Stay)
}

// furnish gives the box its hostname, its mounts and its loopback.
func furnish(spec Spec) error {
	if spec.Hostname != "" {
		if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for dir, own := range spec.Own {
		if err := mountOwn(dir, own); err != nil {
			return err
		}
	}
	for _, m := range []struct{ kind, at, options string }{{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"tmpfs", "/run", "mode=755"}} {
		if err := unix.Mount(m.kind, m.at, m.kind, unix.MS_NOSUID|unix.MS_NODEV, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := LoopbackUp(); err != nil {
		return err
	}
	for _, set := range append(fresh, spec.Sysctl...) {
		if err := set.write(); err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
	}
	return nil
}

// fresh is what a freshly booted kernel has. A new network namespace takes its IPv4 settings from the host's instead
// (net.core.devconf_inherit_init_net in Documentation/admin-guide/sysctl/net.rst). Forwarding comes first, because
// changing it resets others.
var fresh = []Setting{
	{"net/ipv4/ip_forward", "0"},
	{"net/ipv4/conf/all/rp_filter", "0"}, {"net/ipv4/conf/default/rp_filter", "0"},
	{"net/ipv4/conf/all/arp_ignore", "0"}, {"net/ipv4/conf/default/arp_ignore", "0"},
	{"net/ipv4/conf/all/arp_announce", "0"}, {"net/ipv4/conf/default/arp_announce", "0"},
}

// write sets the kernel setting where it differs.
func (s Setting) write() error {
	path := filepath.Join("/proc/sys", s.Name)
	is, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(is)) == s.Value {
		return err
	}
	return os.WriteFile(path, []byte(s.Value), 0o644)
}

// LoopbackUp sets lo up in the network namespace it runs in.
func LoopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

// mountOwn lays the folder own over dir.
func mountOwn(dir, own string) error {
	upper, work := filepath.Join(own, "upper"), filepath.Join(own, "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	options := "lowerdir=" + dir + ",upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
		return fmt.Errorf("overlay on %s: %w", dir, err)
	}
	return nil
}

// Init does what a process 1 must: runs argv, passes on the signals it gets, reaps whatever dies, and returns argv's
// status (128 + signal where one killed it) when argv ends, or never where stay is set.
func Init(argv []string, stdin *os.File, stay bool) int {
	children, signals := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	main := -1
	if len(argv) > 0 {
		p, err := startProcess(argv, stdin)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			if !stay {
				return 127
			}
		} else {
			main = p.Pid
		}
	}
	for {
		for {
			var status unix.WaitStatus
			pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || pid == 0 {
				break
			}
			if pid == main && !stay {
				if status.Signaled() {
					return 128 + int(status.Signal())
				}
				return status.ExitStatus()
			}
		}
		select {
		case <-children:
		case s := <-signals:
			if main > 0 {
				unix.Kill(main, s.(unix.Signal)) // it may have ended
			}
		}
	}
}

// startProcess starts argv and leaves it to the caller to reap it.
func startProcess(argv []string, stdin *os.File) (*os.Process, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "exec: "))
	}
	return os.StartProcess(path, argv, &os.ProcAttr{Files: []*os.File{stdin, os.Stdout, os.Stderr}})
}
