package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bootTime is how long a guest may take to come up; an emulated one takes about 5 s.
const bootTime = 2 * time.Minute

// commandLine is the guest's kernel's. Without no_timer_check a guest whose host is busy may panic: the kernel counts
// the timer's interrupts for 10 ms and finds none (timer_irq_works in arch/x86/kernel/apic/io_apic.c).
const commandLine = "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off random.trust_cpu=on"

// virtiofsds are the places of the daemon that serves the host's files: Debian 12's, and everybody else's.
var virtiofsds = []string{"/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/virtiofsd"}

// Virtiofsd returns the host's virtiofsd, or "".
func Virtiofsd() string {
	for _, path := range virtiofsds {
		if unix.Access(path, unix.X_OK) == nil {
			return path
		}
	}
	return ""
}

// accelerator is QEMU's -accel: KVM only where the processor says that it can, because a /dev/kvm without it (as inside
// other virtual machines) is a guest that never boots.
func accelerator(cpuinfo, kvm string) string {
	data, err := os.ReadFile(cpuinfo)
	if err != nil || unix.Access(kvm, unix.W_OK) != nil {
		return "tcg,thread=multi"
	}
	for line := range strings.Lines(string(data)) {
		if flags, ok := strings.CutPrefix(line, "flags"); ok {
			for _, flag := range strings.Fields(flags) {
				if flag == "vmx" || flag == "svm" {
					return "kvm"
				}
			}
		}
	}
	return "tcg,thread=multi"
}

// startGuest boots a QEMU guest. Its processes end with this one, whatever ends it.
func startGuest(ctx context.Context, self string, say func(string, ...any)) (_ *Machine, err error) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, errors.New("qemu-system-x86_64 is missing: run bin/lab install")
	}
	virtiofsd := Virtiofsd()
	if virtiofsd == "" {
		return nil, errors.New("virtiofsd is missing: run bin/lab install (package qemu-system-common on Debian 12, virtiofsd elsewhere)")
	}
	k, err := findKernel()
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "lvstun-guest-")
	if err != nil {
		return nil, err
	}
	g := &guest{work: work, gone: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.stop())
		}
	}()
	initramfs := filepath.Join(work, "initramfs")
	if err := writeInitramfs(initramfs, self, k); err != nil {
		return nil, err
	}
	accel := accelerator("/proc/cpuinfo", "/dev/kvm")
	say("booting kernel %s with -accel %s", k.release, accel)
	if err := g.serveFiles(ctx, virtiofsd); err != nil {
		return nil, err
	}
	conn, err := g.boot(ctx, qemu, accel, k, initramfs)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, g.lastWords())
	}
	m := &Machine{stop: g.stop, gone: g.gone, lastWords: g.lastWords}
	stopGreeting := context.AfterFunc(ctx, func() { conn.Close() })
	defer stopGreeting()
	conn.SetReadDeadline(time.Now().Add(bootTime))
	if m.session, err = greet(conn); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("the guest did not come up: %w%s", err, g.lastWords())
	}
	conn.SetReadDeadline(time.Time{})
	say("the guest is up")
	return m, nil
}

// guest is a QEMU and its virtiofsd.
type guest struct {
	work            string // its files: sockets, logs, initramfs
	virtiofsd, qemu *exec.Cmd
	gone            chan struct{} // closed when qemu has ended; never where it was not started
}

// start starts a process that ends with this one and keeps what it says in a file of g.work.
func (g *guest) start(name string, args ...string) (*exec.Cmd, error) {
	log, err := os.Create(filepath.Join(g.work, filepath.Base(name)+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	return cmd, cmd.Start()
}

// serveFiles starts virtiofsd. With cache=always the guest sees a file as it was when it first looked: what the host
// changes meanwhile it may miss, but a file that is replaced, as by a build, never fails it.
func (g *guest) serveFiles(ctx context.Context, virtiofsd string) (err error) {
	socket := filepath.Join(g.work, "files")
	g.virtiofsd, err = g.start(virtiofsd, "--socket-path="+socket, "-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot")
	if err != nil {
		return err
	}
	for range 100 {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.New("virtiofsd does not start" + g.lastWords())
}

// boot starts QEMU and returns the channel, on which the guest has said nothing yet.
func (g *guest) boot(ctx context.Context, qemu, accel string, k kernel, initramfs string) (net.Conn, error) {
	l, err := net.Listen("unix", filepath.Join(g.work, "channel"))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	g.qemu, err = g.start(qemu, "-accel", accel, "-cpu", "max", "-smp", "2", "-m", "2G",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
		"-serial", "file:"+filepath.Join(g.work, "console.log"),
		"-object", "memory-backend-memfd,id=mem,size=2G,share=on", "-numa", "node,memdev=mem",
		"-chardev", "socket,id=files,path="+filepath.Join(g.work, "files"), "-device", "vhost-user-fs-pci,chardev=files,tag=root",
		"-chardev", "socket,id=channel,path="+filepath.Join(g.work, "channel"),
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=channel,name="+portName,
		"-device", "virtio-rng-pci",
		"-kernel", k.image, "-initrd", initramfs, "-append", commandLine)
	if err != nil {
		return nil, err
	}
	go func() {
		g.qemu.Wait() // why it ended is in its log
		l.Close()
		close(g.gone)
	}()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	conn, err := l.Accept()
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, errors.New("QEMU ended at once")
	}
	return conn, nil
}

// stop kills the guest and takes its files away. It may be called twice.
func (g *guest) stop() error {
	if g.qemu != nil && g.qemu.Process != nil {
		g.qemu.Process.Kill()
		<-g.gone
	}
	if g.virtiofsd != nil && g.virtiofsd.Process != nil {
		g.virtiofsd.Process.Kill()
		g.virtiofsd.Wait()
	}
	return os.RemoveAll(g.work)
}

// lastWords is the end of everything the guest's processes said, to be put behind an error.
func (g *guest) lastWords() string {
	var b strings.Builder
	logs, _ := filepath.Glob(filepath.Join(g.work, "*.log"))
	for _, log := range logs {
		data, _ := os.ReadFile(log)
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		fmt.Fprintf(&b, "\n--- %s\n%s", filepath.Base(log), strings.Join(lines[max(0, len(lines)-20):], "\n"))
	}
	return b.String()
}
