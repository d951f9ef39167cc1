package ipvs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

var (
	master = SyncDaemon{State: Master, Device: "eth0", ID: 50}
	backup = SyncDaemon{State: Backup, Device: "eth0", ID: 50}

	prompt = SyncDaemon{State: Master, Device: "eth0", ID: 50, MaxLen: PromptMaxLen}

	other = SyncDaemon{State: Backup, Device: "eth1", ID: 7, MaxLen: 1000, TTL: 2, Port: 9000,
		Group: netip.MustParseAddr("ff02::51")}
)

// syncStates are what a director may want one after the other, each as the kernel's text.
var syncStates = []struct {
	want []SyncDaemon
	text string
}{
	{nil, ""},
	{[]SyncDaemon{master}, "sync daemon master on eth0 (id 50)\n"},
	{[]SyncDaemon{backup}, "sync daemon backup on eth0 (id 50)\n"},
	{[]SyncDaemon{prompt}, "sync daemon master on eth0 (id 50, messages of 1 bytes)\n"},
	{[]SyncDaemon{backup, master}, "sync daemon master on eth0 (id 50)\nsync daemon backup on eth0 (id 50)\n"},
	{[]SyncDaemon{other}, "sync daemon backup on eth1 (id 7, to [ff02::51]:9000, ttl 2, messages of 1024 bytes)\n"},
}

func mustSync(t *testing.T, h *Handle, want ...SyncDaemon) SyncReport {
	t.Helper()
	r, err := h.ApplySync(t.Context(), want)
	if err != nil {
		t.Fatalf("ApplySync: %v", err)
	}
	return r
}

func TestApplySyncStates(t *testing.T) {
	f := &fakeKernel{table: newTable(foreign)}
	h := &Handle{t: f}
	step := func(i int) {
		mustSync(t, h, syncStates[i].want...)
		if d := cmp.Diff(syncStates[i].text, f.sync.String()); d != "" {
			t.Fatalf("state %d: daemons (-want +got)\n%s", i, d)
		}
		f.writes = 0
		if r := mustSync(t, h, syncStates[i].want...); r.Changed() || f.writes != 0 || r.Rounds != 1 {
			t.Fatalf("state %d again: %d writes in %d rounds: %v", i, f.writes, r.Rounds, r.Ops)
		}
	}
	for i := range syncStates {
		step(i)
	}
	for range 200 {
		step(rand.IntN(len(syncStates)))
	}
	if d := cmp.Diff(foreignText, f.table.String()); d != "" {
		t.Errorf("the table changed (-want +got)\n%s", d)
	}
}

func TestDiffSync(t *testing.T) {
	started := func(d SyncDaemon) SyncDaemon { // as the kernel reports it
		k := &syncThreads{mtu: map[string]int{"eth0": 1500, "eth1": 1500, "jumbo": 9000, "small": 1280}}
		if err := k.do(cmdNewDaemon, encodeDaemon(d)); err != nil {
			t.Fatal(err)
		}
		return k.running[d.State]
	}
	jumbo, small := backup, backup
	jumbo.Device, small.Device = "jumbo", "small"
	sized := func(d SyncDaemon, n int) SyncDaemon { d.MaxLen = n; return d }
	tests := []struct {
		name       string
		have, want []SyncDaemon
		ops        string
	}{
		{"takeover: the new before the old", []SyncDaemon{backup}, []SyncDaemon{master},
			"start sync daemon master on eth0 (id 50); stop sync daemon backup on eth0 (id 50)"},
		{"release: the new before the old", []SyncDaemon{prompt}, []SyncDaemon{backup},
			"start sync daemon backup on eth0 (id 50); stop sync daemon master on eth0 (id 50, messages of 1 bytes)"},
		{"another id: stop, then start", []SyncDaemon{master}, []SyncDaemon{{State: Master, Device: "eth0", ID: 51}},
			"stop sync daemon master on eth0 (id 50); start sync daemon master on eth0 (id 51)"},
		{"another device", []SyncDaemon{master}, []SyncDaemon{{State: Master, Device: "eth1", ID: 50}},
			"stop sync daemon master on eth0 (id 50); start sync daemon master on eth1 (id 50)"},
		{"another group", []SyncDaemon{master}, []SyncDaemon{{State: Master, Device: "eth0", ID: 50, Group: netip.MustParseAddr("224.0.0.82")}},
			"stop sync daemon master on eth0 (id 50); start sync daemon master on eth0 (id 50, to 224.0.0.82:8848)"},
		{"another port", []SyncDaemon{master}, []SyncDaemon{{State: Master, Device: "eth0", ID: 50, Port: 1}},
			"stop sync daemon master on eth0 (id 50); start sync daemon master on eth0 (id 50, to 224.0.0.81:1)"},
		{"another ttl", []SyncDaemon{master}, []SyncDaemon{{State: Master, Device: "eth0", ID: 50, TTL: 3}},
			"stop sync daemon master on eth0 (id 50); start sync daemon master on eth0 (id 50, ttl 3)"},
		{"the defaults written out", []SyncDaemon{master}, []SyncDaemon{{State: Master, Device: "eth0", ID: 50, Group: defaultSyncGroup, Port: 8848, TTL: 1}}, ""},
		{"prompt back to usual", []SyncDaemon{prompt}, []SyncDaemon{master},
			"stop sync daemon master on eth0 (id 50, messages of 1 bytes); start sync daemon master on eth0 (id 50)"},
		{"usual to prompt", []SyncDaemon{master}, []SyncDaemon{prompt},
			"stop sync daemon master on eth0 (id 50); start sync daemon master on eth0 (id 50, messages of 1 bytes)"},
		{"the usual size written out", []SyncDaemon{master}, []SyncDaemon{sized(master, 1472)}, ""},
		{"a backup takes what its device carries", []SyncDaemon{jumbo}, []SyncDaemon{jumbo}, ""},
		{"a backup on a small device", []SyncDaemon{small}, []SyncDaemon{small}, ""},
		{"a backup of a size below the usual", []SyncDaemon{sized(backup, 1100)}, []SyncDaemon{backup},
			"stop sync daemon backup on eth0 (id 50, messages of 1100 bytes); start sync daemon backup on eth0 (id 50)"},
		{"a backup's size is raised", []SyncDaemon{sized(backup, 1)}, []SyncDaemon{sized(backup, 500)}, ""},
		{"none wanted", []SyncDaemon{master, backup}, nil,
			"stop sync daemon master on eth0 (id 50); stop sync daemon backup on eth0 (id 50)"},
	}
	for _, tt := range tests {
		var have []SyncDaemon
		for _, d := range tt.have {
			have = append(have, started(d))
		}
		var got []string
		for _, o := range diffSync(have, tt.want) {
			got = append(got, o.String())
		}
		if d := cmp.Diff(tt.ops, strings.Join(got, "; ")); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, d)
		}
	}
}

// Whatever call fails, the cause is told, a daemon that is not wanted does not stay for it, and the next ApplySync
// finishes.
func TestApplySyncWithEveryCallFailing(t *testing.T) {
	for from := range syncStates {
		for to := range syncStates {
			for k, failed := 1, true; failed; k++ {
				f := &fakeKernel{table: newTable()}
				h := &Handle{t: f}
				mustSync(t, h, syncStates[from].want...)
				first := f.calls
				failed = false
				f.fail = func(call int, _ uint8) error {
					if call-first != k {
						return nil
					}
					failed = true
					return unix.EIO
				}
				_, err := h.ApplySync(t.Context(), syncStates[to].want)
				if failed != (err != nil) || err != nil && !errors.Is(err, unix.EIO) {
					t.Fatalf("from %d to %d, call %d failing: %v", from, to, k, err)
				}
				f.fail = nil
				mustSync(t, h, syncStates[to].want...)
				if d := cmp.Diff(syncStates[to].text, f.sync.String()); d != "" {
					t.Fatalf("from %d to %d, after call %d failed (-want +got)\n%s", from, to, k, d)
				}
			}
		}
	}
}

func TestApplySyncKeepsOnAfterAFailure(t *testing.T) {
	f := &fakeKernel{table: newTable()}
	h := &Handle{t: f}
	mustSync(t, h, backup)
	r, err := h.ApplySync(t.Context(), []SyncDaemon{{State: Master, Device: "eth7"}})
	if d := cmp.Diff("start sync daemon master on eth7 (id 0): there is no network device eth7 here, or it does not do IP multicast", fmt.Sprint(err)); d != "" {
		t.Errorf("error (-want +got)\n%s", d)
	}
	if d := cmp.Diff(SyncReport{Ops: []string{"stop sync daemon backup on eth0 (id 50)"}, Rounds: 1}, r); d != "" {
		t.Errorf("report (-want +got)\n%s", d)
	}

	// What cannot stop is not started anew.
	mustSync(t, h, master)
	f.writes = 0
	f.fail = func(_ int, cmd uint8) error {
		if cmd == cmdDelDaemon {
			return unix.EIO
		}
		return nil
	}
	r, err = h.ApplySync(t.Context(), []SyncDaemon{prompt, backup})
	if d := cmp.Diff("stop sync daemon master on eth0 (id 50): input/output error", fmt.Sprint(err)); d != "" {
		t.Errorf("error (-want +got)\n%s", d)
	}
	if d := cmp.Diff(SyncReport{Ops: []string{"start sync daemon backup on eth0 (id 50)"}, Rounds: 1}, r); d != "" || f.writes != 2 {
		t.Errorf("report after %d writes (-want +got)\n%s", f.writes, d)
	}
}

// Someone else starts and stops daemons between the reading and the writing.
func TestApplySyncMeetsOthers(t *testing.T) {
	foreignMaster := SyncDaemon{State: Master, Device: "eth1", ID: 3}
	tests := []struct {
		name   string
		have   []SyncDaemon
		cmd    uint8
		act    func(*syncThreads) error
		rounds int
		ops    []string
	}{
		{"starts one of its own", nil, cmdNewDaemon,
			func(k *syncThreads) error { return k.do(cmdNewDaemon, encodeDaemon(foreignMaster)) }, 2,
			[]string{"stop sync daemon master on eth1 (id 3)", "start sync daemon master on eth0 (id 50)"}},
		{"starts the same", nil, cmdNewDaemon,
			func(k *syncThreads) error { return k.do(cmdNewDaemon, encodeDaemon(master)) }, 2, nil},
		{"stops what shall stop", []SyncDaemon{foreignMaster}, cmdDelDaemon,
			func(k *syncThreads) error { return k.do(cmdDelDaemon, encodeDaemonState(Master)) }, 1,
			[]string{"start sync daemon master on eth0 (id 50)"}},
	}
	for _, tt := range tests {
		f := &fakeKernel{table: newTable()}
		h := &Handle{t: f}
		mustSync(t, h, tt.have...)
		acted := false
		f.before = func(_ int, cmd uint8) {
			if cmd == tt.cmd && !acted {
				acted = true
				if err := tt.act(&f.sync); err != nil {
					t.Fatal(err)
				}
			}
		}
		r := mustSync(t, h, master)
		if d := cmp.Diff(SyncReport{Ops: tt.ops, Rounds: tt.rounds}, r); d != "" {
			t.Errorf("%s: report (-want +got)\n%s", tt.name, d)
		}
		if d := cmp.Diff("sync daemon master on eth0 (id 50)\n", f.sync.String()); d != "" {
			t.Errorf("%s: daemons (-want +got)\n%s", tt.name, d)
		}
	}
}

// An answer that was lost leaves open whether the daemon was started or stopped.
func TestApplySyncLostAnswer(t *testing.T) {
	tests := []struct {
		name       string
		have, want []SyncDaemon
		cmd        uint8
		errno      error
		ops        []string
	}{
		{"of a start", nil, []SyncDaemon{master}, cmdNewDaemon, unix.ENOBUFS, nil},
		{"of a stop", []SyncDaemon{backup}, nil, cmdDelDaemon, unix.EAGAIN, nil},
		{"of a stop, interrupted", []SyncDaemon{backup}, nil, cmdDelDaemon, unix.EINTR, nil},
		{"of a restart", []SyncDaemon{master}, []SyncDaemon{prompt}, cmdDelDaemon, unix.EAGAIN,
			[]string{"start sync daemon master on eth0 (id 50, messages of 1 bytes)"}},
	}
	for _, tt := range tests {
		f := &fakeKernel{table: newTable()}
		h := &Handle{t: f}
		mustSync(t, h, tt.have...)
		lost := false
		f.fail = func(_ int, cmd uint8) error {
			if cmd != tt.cmd || lost {
				return nil
			}
			lost = true
			d := append(tt.have, tt.want...)[0]
			if err := f.sync.do(cmd, encodeDaemon(d)); err != nil {
				t.Fatal(err)
			}
			return tt.errno
		}
		r := mustSync(t, h, tt.want...)
		if d := cmp.Diff(SyncReport{Ops: tt.ops, Rounds: 2}, r); d != "" || !lost {
			t.Errorf("%s: report (-want +got)\n%s", tt.name, d)
		}
		if len(f.sync.running) != len(tt.want) {
			t.Errorf("%s: %s run", tt.name, &f.sync)
		}
	}
}

func TestApplySyncErrors(t *testing.T) {
	const start = "start sync daemon master on eth0 (id 50): "
	tests := []struct {
		cmd    uint8
		errno  error
		text   string
		rounds int
	}{
		{cmdNewDaemon, unix.EPERM, start + "IPVS needs CAP_NET_ADMIN in the initial user namespace", 1},
		{cmdNewDaemon, unix.EEXIST, start + "someone else has started one meanwhile, and keeps doing so (does another program manage the sync daemon?)", applyRounds},
		{cmdNewDaemon, unix.EINVAL, start + "a virtual service has a real server of another family than its own, which the kernel cannot have beside a sync daemon: take that real server out, or go without sync", 1},
		{cmdNewDaemon, unix.ENODEV, start + "there is no network device eth0 here, or it does not do IP multicast", 1},
		{cmdNewDaemon, unix.ENETUNREACH, start + "no route leads to 224.0.0.81 through eth0 (is it up, and has it an address?)", 1},
		{cmdNewDaemon, unix.EADDRINUSE, start + "UDP port 8848 of 224.0.0.81 is taken by another program", 1},
		{cmdNewDaemon, unix.EADDRNOTAVAIL, start + "eth0 has no address to send to 224.0.0.81 from", 1},
		{cmdNewDaemon, unix.EAFNOSUPPORT, start + "IPv6 is switched off in this kernel: use an IPv4 group", 1},
		{cmdNewDaemon, unix.ENOMEM, start + "cannot allocate memory", 1},
		{cmdGetDaemon, unix.EPERM, "read the sync daemons: IPVS needs CAP_NET_ADMIN in the initial user namespace", 0},
		{cmdGetDaemon, nl.ErrDumpInterrupted, "read the sync daemons: " + nl.ErrDumpInterrupted.Error(), 0},
	}
	for _, tt := range tests {
		f := &fakeKernel{table: newTable()}
		f.fail = func(_ int, cmd uint8) error {
			if cmd == tt.cmd {
				return tt.errno
			}
			return nil
		}
		r, err := (&Handle{t: f}).ApplySync(t.Context(), []SyncDaemon{master})
		if d := cmp.Diff(tt.text, fmt.Sprint(err)); d != "" {
			t.Errorf("error (-want +got)\n%s", d)
		}
		if !errors.Is(err, tt.errno) || r.Rounds != tt.rounds || r.Changed() {
			t.Errorf("%v: after %d rounds, want %d; did %v", err, r.Rounds, tt.rounds, r.Ops)
		}
	}
}

func TestSyncDaemonValidate(t *testing.T) {
	bad := SyncDaemon{State: 3, Device: "a-name-too-long-", ID: 256, MaxLen: 65508, Group: netip.MustParseAddr("10.0.0.1")}
	f := &fakeKernel{table: newTable()}
	_, err := (&Handle{t: f}).ApplySync(t.Context(), []SyncDaemon{master, bad, {State: Master, Device: "eth0/1", ID: -1, MaxLen: -1, Group: netip.MustParseAddr("ff02::51%eth0")}})
	want := `sync daemon state 3: state 3: must be master or backup
sync daemon state 3: device "a-name-too-long-": must be the name of a network device, of at most 15 bytes
sync daemon state 3: id 256: must be between 0 and 255
sync daemon state 3: message size 65508: must be between 1 and 65507 bytes, or 0 for the kernel's own
sync daemon state 3: group 10.0.0.1 is not a multicast address
sync daemon master: listed more than once, and the kernel runs one of each state
sync daemon master: device "eth0/1": must be the name of a network device, of at most 15 bytes
sync daemon master: id -1: must be between 0 and 255
sync daemon master: message size -1: must be between 1 and 65487 bytes, or 0 for the kernel's own
sync daemon master: group ff02::51%eth0 has a zone: leave it out, the device says it`
	if d := cmp.Diff(want, fmt.Sprint(err)); d != "" {
		t.Errorf("error (-want +got)\n%s", d)
	}
	if f.calls != 0 {
		t.Errorf("%d calls for what does not validate", f.calls)
	}
	for _, d := range []SyncDaemon{master, backup, prompt, other, {State: Master, Device: "a-name-of-fifte", MaxLen: 65507}} {
		if errs := d.Validate(); errs != nil {
			t.Errorf("%s: %v", d, errs)
		}
	}
	for group, want := range map[string]string{
		"::ffff:224.0.0.81": "group ::ffff:224.0.0.81 is not a multicast address", "2001:db8::1": "group 2001:db8::1 is not a multicast address"} {
		d := master
		d.Group = netip.MustParseAddr(group)
		if errs := d.Validate(); len(errs) != 1 || errs[0].Error() != want {
			t.Errorf("group %s: %v", group, errs)
		}
	}
}

func TestSyncDaemons(t *testing.T) {
	f := &fakeKernel{table: newTable()}
	h := &Handle{t: f}
	mustSync(t, h, other, master)
	want := []SyncDaemon{
		{State: Master, Device: "eth0", ID: 50, MaxLen: 1472, Group: netip.MustParseAddr("224.0.0.81"), Port: 8848, TTL: 1},
		{State: Backup, Device: "eth1", ID: 7, MaxLen: 1024, Group: netip.MustParseAddr("ff02::51"), Port: 9000, TTL: 2},
	}
	got, err := h.SyncDaemons(t.Context())
	if d := cmp.Diff(want, got, cmpAddr); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}

	// A kernel that says less runs what it can.
	f.sync = syncThreads{old: true}
	mustSync(t, h, master)
	got, err = h.SyncDaemons(t.Context())
	if d := cmp.Diff([]SyncDaemon{master}, got, cmpAddr); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	if r := mustSync(t, h, prompt); r.Changed() {
		t.Errorf("%v on a kernel that cannot", r.Ops)
	}
}

func TestApplySyncStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &fakeKernel{table: newTable()}
	f.before = func(_ int, cmd uint8) {
		if cmd == cmdNewDaemon {
			cancel()
		}
	}
	h := &Handle{t: f}
	r, err := h.ApplySync(ctx, []SyncDaemon{master, backup})
	if !errors.Is(err, context.Canceled) || f.writes != 1 || len(r.Ops) != 1 {
		t.Errorf("%d writes, %v: %v", f.writes, r.Ops, err)
	}
	calls := f.calls
	if _, err := h.ApplySync(ctx, nil); !errors.Is(err, context.Canceled) || f.calls != calls {
		t.Errorf("a dead context: %d calls: %v", f.calls-calls, err)
	}
}

func TestSyncStateString(t *testing.T) {
	for s, want := range map[SyncState]string{Master: "master", Backup: "backup", 3: "state 3"} {
		if s.String() != want {
			t.Errorf("%d is %q, want %q", s, s, want)
		}
	}
}
