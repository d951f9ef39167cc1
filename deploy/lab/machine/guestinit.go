package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lvstun/deploy/lab/box"
)

// Guest is the lab's hidden command that is process 1 of a QEMU guest; see GuestMain.
const Guest = "guest"

// portName names the virtio port of the channel.
const portName = "lab"

// modules are what the lab needs of the guest's kernel; patterns are matched against the modules' files.
var modules = []string{
	"virtio_console", "virtio-rng",
	"ip_vs", "ip_vs_*", "ipip", "sit", "ip6_tunnel", "ip_gre", "ip6_gre", "fou", "fou6", "tun",
	"veth", "bridge", "dummy", "macvlan", "sch_netem", "sch_ingress",
	"nf_tables", "nf_conntrack", "nft_ct", "nft_fib_inet", "nft_limit", "nft_log", "nft_nat", "nft_objref", "nft_reject_inet",
	"inet_diag", "tcp_diag", "udp_diag", "raw_diag", "af_packet_diag",
}

// GuestMain is process 1 of a guest whose kernel's modules are in the given folder. It does not return: when the
// channel closes it powers the guest off.
func GuestMain(modulesDir string) {
	if err := guestMain(modulesDir); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func guestMain(modulesDir string) error {
	os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	mounts := []struct{ kind, at, options string }{
		{"tmpfs", "/run", "mode=755"}, {"devpts", "/dev/pts", "mode=620,ptmxmode=666"}, {"tmpfs", "/dev/shm", "mode=1777"},
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, unix.MS_NOSUID, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	for link, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, "/dev/"+link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := os.MkdirAll("/lib/modules", 0o755); err != nil {
		return err
	}
	if err := unix.Mount(modulesDir, "/lib/modules", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /lib/modules: %w", err)
	}
	if err := loadModules(modulesDir); err != nil {
		return err
	}
	if err := box.LoopbackUp(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return err
	}
	channel, err := openPort("/sys/class/virtio-ports")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	box.Init([]string{self, Service}, channel, false)
	return nil
}

// loadModules inserts every module of the list in one modprobe.
func loadModules(modulesDir string) error {
	var names []string
	err := filepath.WalkDir(modulesDir, func(path string, _ os.DirEntry, err error) error {
		name, ok := strings.CutSuffix(filepath.Base(path), ".ko")
		if !ok {
			return err
		}
		for _, pattern := range modules {
			if match, _ := filepath.Match(pattern, name); match {
				names = append(names, name)
				break
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	out, err := exec.Command("modprobe", append([]string{"-a"}, names...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("modprobe: %w: %s", err, out)
	}
	return nil
}

// openPort opens the virtio port of the channel, whose name the host sends some time after the driver is there.
func openPort(class string) (*os.File, error) {
	for range 500 {
		ports, err := filepath.Glob(filepath.Join(class, "*/name"))
		if err != nil {
			return nil, err
		}
		for _, name := range ports {
			data, err := os.ReadFile(name)
			if err == nil && strings.TrimSpace(string(data)) == portName {
				return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(name))), os.O_RDWR, 0)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.New("the guest has no virtio port named " + portName)
}
