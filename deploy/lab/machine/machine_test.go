package machine

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lvstun/deploy/lab/wire"
)

// tree writes files below a new folder.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLacking(t *testing.T) {
	const devices = "Inter-|   Receive\n    lo: 0 0\n tunl0: 0 0\n"
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", nil, "this kernel has no IPVS"},
		{"IPVS alone", map[string]string{"net/ip_vs": "", "net/dev": "    lo: 0 0\n"}, "this kernel has no IPIP"},
		{"IPIP alone", map[string]string{"net/dev": devices}, "this kernel has no IPVS"},
		{"both", map[string]string{"net/ip_vs": "", "net/dev": devices}, ""},
		{"both, and tunl0 in every namespace", map[string]string{"net/ip_vs": "", "net/dev": devices, "sys/net/core/fb_tunnels_only_for_init_net": "0\n"}, ""},
		{"both, but tunl0 for the host alone", map[string]string{"net/ip_vs": "", "net/dev": devices, "sys/net/core/fb_tunnels_only_for_init_net": "1\n"},
			"this kernel gives tunl0 to the host alone (fb_tunnels_only_for_init_net)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := lacking(tree(t, tt.files)); got != tt.want {
				t.Errorf("lacking = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAccelerator(t *testing.T) {
	const tcg = "tcg,thread=multi"
	tests := []struct {
		name, cpuinfo string
		kvm           bool
		want          string
	}{
		{"Intel", "processor : 0\nflags\t\t: fpu vmx sse2\n", true, "kvm"},
		{"AMD", "flags\t\t: fpu svm\n", true, "kvm"},
		{"no device", "flags\t\t: fpu vmx\n", false, tcg},
		{"a guest without nesting", "flags\t\t: fpu sse2\n", true, tcg},
		{"the word elsewhere", "vmx flags\t: ept\nmodel name : vmx\nflags\t\t: fpu avmx\n", true, tcg},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, map[string]string{"cpuinfo": tt.cpuinfo})
			kvm := filepath.Join(dir, "kvm")
			if tt.kvm {
				if err := os.WriteFile(kvm, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := accelerator(filepath.Join(dir, "cpuinfo"), kvm); got != tt.want {
				t.Errorf("accelerator = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestCPIO(t *testing.T) {
	var b bytes.Buffer
	c := &cpio{w: &b}
	c.dir("bin")
	c.file("bin/x", []byte("hello"))
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	// From the format's description: 110 bytes of header, the name with its NUL and the content each up to 4 bytes.
	want := "070701" + "00000001" + "000041ed" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000004" + "00000000" + "bin\x00" + "\x00\x00" +
		"070701" + "00000002" + "000081ed" + "00000000" + "00000000" + "00000001" + "00000000" + "00000005" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000006" + "00000000" + "bin/x\x00" + "hello\x00\x00\x00" +
		"070701" + "00000000" + "00000000" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000000" + "00000000" + "0000000b" + "00000000" + "TRAILER!!!\x00" + "\x00\x00\x00"
	if got := b.String(); got != want {
		t.Errorf("archive:\n%q\nwant:\n%q", got, want)
	}
}

type failingWriter struct{ after int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.after--; w.after < 0 {
		return 0, os.ErrClosed
	}
	return len(p), nil
}

func TestCPIOFailure(t *testing.T) {
	for after := range 4 {
		c := &cpio{w: &failingWriter{after: after}}
		c.dir("bin")
		if err := c.close(); err == nil {
			t.Errorf("a disk that is full after %d writes goes unnoticed", after)
		}
	}
}

func TestKernelIn(t *testing.T) {
	dir := tree(t, map[string]string{
		"boot/vmlinuz-6.1.0-9-cloud-amd64":                                    "",
		"lib/modules/6.1.0-9-cloud-amd64/kernel/drivers/virtio/virtio.ko":     "",
		"lib/modules/6.1.0-9-cloud-amd64/kernel/drivers/virtio/virtio_pci.ko": "",
	})
	k, err := kernelIn(dir)
	if err != nil || k.release != "6.1.0-9-cloud-amd64" {
		t.Fatalf("kernelIn = %+v, %v", k, err)
	}
	path, err := k.module("virtio")
	if err != nil || !strings.HasSuffix(path, "/virtio.ko") {
		t.Errorf("module virtio = %s, %v", path, err)
	}
	if _, err := k.module("overlay"); err == nil || !strings.Contains(err.Error(), "has no module overlay") {
		t.Errorf("a missing module: %v", err)
	}
	if _, err := kernelIn(t.TempDir()); err == nil {
		t.Error("an empty folder is a kernel")
	}
}

// TestServe runs commands at the same time over one channel.
func TestServe(t *testing.T) {
	ours, theirs := net.Pipe()
	served := make(chan error)
	go func() { served <- Serve(theirs) }()
	session, err := greet(ours)
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{session: session, stop: func() error { return nil }, gone: make(chan struct{})}
	done := make(chan string)
	for _, word := range []string{"one", "two", "three"} {
		go func() {
			var out bytes.Buffer
			status, err := m.Run(wire.Request{Argv: []string{"cat"}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/"}, strings.NewReader(word), &out, &out, nil)
			if err != nil || status != 0 || out.String() != word {
				t.Errorf("cat = %d, %q, %v; want %q", status, &out, err, word)
			}
			done <- word
		}()
	}
	for range 3 {
		<-done
	}
	if err := m.Stop(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := m.Open(); err == nil {
		t.Error("a stopped machine answers")
	}
}
