package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"lvstun/deploy/lab/machine"
)

// A tool is something the lab needs on the host, and Debian's package of it.
type tool struct {
	what    string // a command, unless present says otherwise
	pkg     string
	present func() bool
}

// tools are what the lab, its scripts and the tests use.
var tools = []tool{
	{what: "qemu-system-x86_64", pkg: "qemu-system-x86"},
	{what: "virtiofsd", present: func() bool { return machine.Virtiofsd() != "" }},
	{what: "a static busybox", pkg: "busybox-static", present: machine.StaticBusybox},
	{what: "modprobe", pkg: "kmod"},
	{what: "ip", pkg: "iproute2"},
	{what: "ipvsadm", pkg: "ipvsadm"},
	{what: "nft", pkg: "nftables"},
	{what: "curl", pkg: "curl"},
	{what: "ps", pkg: "procps"},
	{what: "ping", pkg: "iputils-ping"},
	{what: "tcpdump", pkg: "tcpdump"},
	{what: "systemctl", pkg: "systemd"},
	{what: "gcc", pkg: "gcc libc6-dev"}, // the race detector's
}

// install is `lab install`.
func install(l *lab, _ []string) (int, error) {
	ctx, cancel := untilSignal()
	defer cancel()
	os.Setenv("PATH", l.path())
	var what, packages []string
	for _, t := range tools {
		present := t.present
		if present == nil {
			present = func() bool { _, err := exec.LookPath(t.what); return err == nil }
		}
		if present() {
			continue
		}
		what = append(what, t.what)
		if t.what == "virtiofsd" {
			t.pkg = virtiofsdPackage(ctx)
		}
		packages = append(packages, strings.Fields(t.pkg)...)
	}
	if len(what) > 0 {
		if _, err := exec.LookPath("apt-get"); err != nil {
			return 1, fmt.Errorf("missing: %s; this system has no apt-get: install them with its own package manager", strings.Join(what, ", "))
		}
		say("installing %s", strings.Join(packages, " "))
		if err := aptGet(ctx, "update", "-q"); err != nil {
			return 1, err
		}
		if err := aptGet(ctx, append([]string{"install", "-q", "-y", "--no-install-recommends"}, packages...)...); err != nil {
			return 1, err
		}
	}
	return 0, machine.FetchKernel(ctx, say)
}

// virtiofsdPackage is the one that holds virtiofsd: a package of its own since Debian 13.
func virtiofsdPackage(ctx context.Context) string {
	if exec.CommandContext(ctx, "apt-cache", "show", "virtiofsd").Run() == nil {
		return "virtiofsd"
	}
	return "qemu-system-common"
}

func aptGet(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return errors.Join(fmt.Errorf("apt-get %s: %w", args[0], err), errors.New(strings.TrimSpace(string(out))))
	}
	return nil
}
