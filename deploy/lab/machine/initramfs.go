package machine

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// early are the modules that the root needs, in the order they must be inserted.
var early = []string{"virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "fuse", "virtiofs", "overlay"}

// initScript lays a writable overlay over the host's root and hands over to the lab.
// The arguments are the modules to insert, the lab's binary, and the folder of all modules.
const initScript = `#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t devtmpfs dev /dev; $B mount -t sysfs sys /sys
for m in %s; do $B insmod /modules/$m.ko; done
$B mount -t virtiofs -o ro root /ro || exec $B poweroff -f
$B mount -t tmpfs -o size=50%% tmpfs /rw; $B mkdir /rw/upper /rw/work
$B mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work overlay /new
for d in proc sys dev; do $B mount --move /$d /new/$d; done
exec $B switch_root /new "%s" ` + Guest + ` "%s"
`

// busybox is the shell of the initramfs; it must need no libraries.
const busybox = "/bin/busybox"

// StaticBusybox says whether the host has it.
func StaticBusybox() bool {
	f, err := elf.Open(busybox)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// writeInitramfs writes the guest's initramfs, uncompressed: the emulated processor would take longer to unpack it than
// QEMU takes to load it.
func writeInitramfs(path, self string, k kernel) (err error) {
	if !StaticBusybox() {
		return errors.New(busybox + " is missing or not static: run bin/lab install (package busybox-static)")
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	c := &cpio{w: f}
	for _, dir := range []string{"bin", "proc", "sys", "dev", "modules", "ro", "rw", "new"} {
		c.dir(dir)
	}
	sh, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	c.file("bin/busybox", sh)
	for _, name := range early {
		file, err := k.module(name)
		if err != nil {
			return err
		}
		module, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		c.file("modules/"+name+".ko", module)
	}
	script := fmt.Sprintf(initScript, strings.Join(early, " "), self, filepath.Clean(k.modules))
	c.file("init", []byte(script))
	return c.close()
}
