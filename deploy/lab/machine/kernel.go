package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Cache is where the guest's kernel is kept between runs.
const Cache = "/var/cache/lvstun-lab"

// kernelPackage depends on Debian's newest kernel for virtual machines, which has IPVS, every tunnel, and virtiofs.
const kernelPackage = "linux-image-cloud-amd64"

// kernel is an unpacked kernel package.
type kernel struct {
	image   string // the bzImage
	modules string // its /lib/modules
	release string
}

// FetchKernel makes sure that a kernel for the guest is in Cache. Nothing of it is installed.
func FetchKernel(ctx context.Context, say func(format string, args ...any)) error {
	if _, err := findKernel(); err == nil {
		return nil
	}
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("the guest needs an amd64 host, not %s: run the lab where the kernel has ip_vs and ipip", runtime.GOARCH)
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("apt-get is missing: the guest's kernel is Debian's; run the lab on Debian or where the kernel has ip_vs and ipip")
	}
	if err := os.MkdirAll(Cache, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(Cache, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	say("fetching the guest's kernel")
	name, err := kernelName(ctx)
	if err == nil {
		err = run(ctx, work, "apt-get", "download", "-q", name)
	}
	if err != nil { // no package lists yet, or old ones
		if err := run(ctx, work, "apt-get", "update", "-q"); err != nil {
			return err
		}
		if name, err = kernelName(ctx); err != nil {
			return err
		}
		if err := run(ctx, work, "apt-get", "download", "-q", name); err != nil {
			return err
		}
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages", name, len(debs))
	}
	tree := filepath.Join(work, "tree")
	if err := run(ctx, work, "dpkg", "-x", debs[0], tree); err != nil {
		return err
	}
	k, err := kernelIn(tree)
	if err != nil {
		return err
	}
	if err := run(ctx, work, "depmod", "-b", tree, k.release); err != nil {
		return err
	}
	return os.Rename(tree, filepath.Join(Cache, name))
}

// kernelName asks apt which kernel package kernelPackage stands for.
func kernelName(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", kernelPackage).Output()
	if err != nil {
		return "", fmt.Errorf("apt-cache depends %s: %w", kernelPackage, err)
	}
	for line := range strings.Lines(string(out)) {
		if _, name, ok := strings.Cut(line, "Depends: "); ok && strings.HasPrefix(name, "linux-image-") {
			return strings.TrimSpace(name), nil
		}
	}
	return "", fmt.Errorf("package %s is unknown to apt: the guest's kernel is Debian's", kernelPackage)
}

// findKernel returns the last kernel of Cache by name.
func findKernel() (kernel, error) {
	trees, err := filepath.Glob(filepath.Join(Cache, "linux-image-*"))
	if err != nil || len(trees) == 0 {
		return kernel{}, errors.New("no kernel for the guest: run bin/lab install")
	}
	return kernelIn(trees[len(trees)-1])
}

func kernelIn(tree string) (kernel, error) {
	images, err := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return kernel{}, fmt.Errorf("%s holds %d kernels", tree, len(images))
	}
	return kernel{
		image: images[0], modules: filepath.Join(tree, "lib/modules"),
		release: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-"),
	}, nil
}

// module returns the file of one kernel module.
func (k kernel) module(name string) (string, error) {
	var found string
	err := filepath.WalkDir(filepath.Join(k.modules, k.release, "kernel"), func(path string, _ os.DirEntry, err error) error {
		if filepath.Base(path) == name+".ko" {
			found = path
			return filepath.SkipAll
		}
		return err
	})
	if err == nil && found == "" {
		err = fmt.Errorf("kernel %s has no module %s", k.release, name)
	}
	return found, err
}

// run runs a command and puts what it said into the error where it fails.
func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
