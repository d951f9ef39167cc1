package guard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// fake is an nf_tables with room for one table.
type fake struct {
	state
	number uint32
	calls  []string
	// fail is called before each call, with its name; its error becomes the call's.
	fail func(call string) error
}

var _ kernel = (*fake)(nil)

func (f *fake) called(name string) error {
	f.calls = append(f.calls, name)
	if f.fail != nil {
		return f.fail(name)
	}
	return nil
}

func (f *fake) generation(context.Context) (uint32, error) {
	err := f.called("generation")
	return f.number, err
}

func (f *fake) read(context.Context) (state, error) {
	if err := f.called("read"); err != nil {
		return state{}, err
	}
	return state{present: f.present, things: maps.Clone(f.things), counts: maps.Clone(f.state.counts)}, nil
}

func (f *fake) counts(context.Context) (map[string]Count, error) {
	if err := f.called("counts"); err != nil {
		return nil, err
	}
	return maps.Clone(f.state.counts), nil
}

func (f *fake) replace(_ context.Context, have state, t table, counts map[string]Count) error {
	if err := f.called("replace"); err != nil {
		return err
	}
	if have.present != f.present || !maps.EqualFunc(have.things, f.things, slices.Equal) {
		return errors.New("what is replaced is not what is there")
	}
	before := f.state.counts
	f.number++
	f.state = state{present: true, things: t.things(), counts: map[string]Count{}}
	for _, c := range t.counters {
		f.state.counts[c] = counts[c]
		if n, found := before[c]; found {
			f.state.counts[c] = n
		}
	}
	return nil
}

func (f *fake) remove(context.Context) (bool, error) {
	if err := f.called("remove"); err != nil {
		return false, err
	}
	was := f.present
	f.flush()
	return was, nil
}

// What others do.
func (f *fake) flush() { f.number++; f.state = state{} }

func (f *fake) set(thing string, lines ...string) { f.number++; f.things[thing] = lines }

func (f *fake) count(name string, n uint64) {
	f.state.counts[name] = Count{Packets: n, Bytes: 100 * n}
}

func (f *fake) holds(d Desired) bool {
	normal, err := d.normal()
	return err == nil && f.present && maps.EqualFunc(f.things, build(normal).things(), slices.Equal)
}

func texts(changes []Change) []string {
	var all []string
	for _, c := range changes {
		all = append(all, fmt.Sprintf("%s: %s -> %s", c.What, c.Old, c.New))
	}
	return all
}

func TestApply(t *testing.T) {
	k := &fake{}
	g := newGuard(k)
	desired := everything()
	for _, step := range []struct {
		name  string
		do    func()
		want  []string
		calls string
	}{
		{"at first", nil, []string{"nftables table lvstun: missing -> present"}, "generation read generation replace"},
		{"again", nil, nil, "generation read generation"},
		{"from then on", nil, nil, "generation counts"},
		{"somebody changed another table", func() { k.number++ }, nil, "generation read generation"},
		{"somebody's flush ruleset", k.flush, []string{"nftables table lvstun: missing -> present"}, "generation read generation replace"},
		{"somebody's element", func() { k.set("set directors4", "10.0.0.1", "10.0.0.2", "192.0.2.66") },
			[]string{"nftables set directors4: 10.0.0.1, 10.0.0.2, 192.0.2.66 -> 10.0.0.1, 10.0.0.2"}, "generation read generation replace"},
		{"somebody's empty set", func() { k.set("set vips6") }, []string{"nftables set vips6: empty -> 2001:db8::50"}, "generation read generation replace"},
		{"somebody's rule", func() {
			k.set("rules of chain answers", append([]string{"x"}, k.things["rules of chain answers"]...)...)
		},
			[]string{"nftables rules of chain answers: a rule of somebody else -> "}, "generation read generation replace"},
		{"somebody's order", func() {
			rules := slices.Clone(k.things["rules of chain answers"])
			slices.Reverse(rules)
			k.set("rules of chain answers", rules...)
		}, []string{"nftables rules of chain answers: in another order -> in order"}, "generation read generation replace"},
		{"somebody's chain", func() { k.set("chain mine", "without a hook") }, []string{"nftables chain mine: without a hook -> missing"}, "generation read generation replace"},
		{"a counter is gone", func() { delete(k.things, "counter not_to_vips"); k.number++ },
			[]string{"nftables counter not_to_vips: missing -> present"}, "generation read generation replace"},
		{"another director", func() { desired.Directors = addrs("10.0.0.1 10.0.0.3 2001:db8::1") },
			[]string{"nftables set directors4: 10.0.0.1, 10.0.0.2 -> 10.0.0.1, 10.0.0.3"}, "generation read generation replace"},
		{"another MSS", func() { desired.MSS4 = 1340 }, []string{
			`nftables rules of chain answers: oifname != "lo" ip saddr @vips4 tcp flags 0x2 tcp option maxseg size > 1440 counter name "mss_lowered" tcp option maxseg size set 1440` +
				` -> oifname != "lo" ip saddr @vips4 tcp flags 0x2 tcp option maxseg size > 1340 counter name "mss_lowered" tcp option maxseg size set 1340`,
		}, "generation read generation replace"},
		{"many VIPs", func() {
			for i := range 10 {
				desired.VIPs = append(desired.VIPs, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}))
			}
		}, []string{"nftables set vips4: 10.0.0.50, 10.0.0.51 -> 10.0.0.50, 10.0.0.51, 10.0.1.0, 10.0.1.1, 10.0.1.2, 10.0.1.3, 10.0.1.4, 10.0.1.5 and 4 more"},
			"generation read generation replace"},
		{"the end", nil, nil, "generation read generation"},
	} {
		k.calls = nil
		if step.do != nil {
			step.do()
		}
		report, err := g.Apply(t.Context(), desired)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if diff := cmp.Diff(step.want, texts(report.Changes)); diff != "" {
			t.Errorf("%s: changes (-want +got):\n%s", step.name, diff)
		}
		if got := strings.Join(k.calls, " "); got != step.calls {
			t.Errorf("%s: calls %s, want %s", step.name, got, step.calls)
		}
		if !k.holds(desired) {
			t.Errorf("%s: the kernel holds something else", step.name)
		}
	}
	if report, err := newGuard(k).Apply(t.Context(), desired); err != nil || len(report.Changes) != 0 {
		t.Errorf("after a restart: %v, %v", report.Changes, err)
	}
}

func TestCounters(t *testing.T) {
	k := &fake{}
	g := newGuard(k)
	var report Report
	apply := func() {
		t.Helper()
		var err error
		if report, err = g.Apply(t.Context(), everything()); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when string, refused uint64, decapsulated uint64) {
		t.Helper()
		i := slices.IndexFunc(report.Counters, func(c Counter) bool { return c.Name == Decapsulated })
		if len(report.Counters) != len(counters) || report.Refused() != refused || report.Counters[i].Packets != decapsulated {
			t.Errorf("%s: %d refused, want %d; counters %v", when, report.Refused(), refused, report.Counters)
		}
	}
	apply()
	want("at first", 0, 0)
	k.count(Decapsulated, 100)
	k.count(NotFromDirectors, 3)
	k.count(NotToVIPs, 2)
	k.count(MSSLowered, 50)
	apply()
	want("counted", 5, 100)
	apply()
	want("without a change", 5, 100)
	k.set("set directors4")
	apply()
	want("replaced", 5, 100)
	k.count(NotFromDirectors, 4)
	k.flush()
	apply()
	want("flushed: what nobody saw is lost", 5, 100)
	k.fail = func(string) error { return errors.New("broken") }
	report, err := g.Apply(t.Context(), everything())
	if err == nil || report.Refused() != 5 {
		t.Errorf("an error: %v, %d refused", err, report.Refused())
	}
	k.fail = nil
	g = newGuard(k)
	apply()
	want("restarted", 5, 100)
}

func TestBadInputChangesNothing(t *testing.T) {
	k := &fake{}
	g := newGuard(k)
	report, err := g.Apply(t.Context(), Desired{})
	if want := "guard: no director is named: every packet of a tunnel would be refused"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if len(k.calls) != 0 || len(report.Changes) != 0 {
		t.Errorf("calls %v, changes %v", k.calls, report.Changes)
	}
}

func TestSomebodyChangesRulesMeanwhile(t *testing.T) {
	k := &fake{}
	g := newGuard(k)
	reads := 0
	k.fail = func(call string) error {
		if call == "read" && reads < 3 {
			reads++
			k.number++
			return errors.New("it is gone while it is read")
		}
		return nil
	}
	if _, err := g.Apply(t.Context(), everything()); err != nil || !k.holds(everything()) {
		t.Errorf("while it was read: %v", err)
	}

	k.flush()
	replaces := 0
	k.fail = func(call string) error {
		if call == "replace" && replaces < 3 {
			replaces++
			k.number++
			return errors.New("it is gone while it is replaced")
		}
		return nil
	}
	if _, err := g.Apply(t.Context(), everything()); err != nil || replaces != 3 || !k.holds(everything()) {
		t.Errorf("while it was replaced: %v", err)
	}

	for _, during := range []string{"read", "replace"} {
		k.flush()
		k.calls = nil
		k.fail = func(call string) error {
			if call == during {
				k.number++
				return errors.New("again")
			}
			return nil
		}
		if _, err := g.Apply(t.Context(), everything()); !errors.Is(err, errBusy) || len(k.calls) > 100 {
			t.Errorf("always during %s: %v after %d calls", during, err, len(k.calls))
		}
	}
}

// TestEveryCallMayFail fails every k-th call of a run once; the next Apply puts things right.
func TestEveryCallMayFail(t *testing.T) {
	broken := errors.New("broken")
	for n := range 12 {
		k := &fake{}
		g := newGuard(k)
		called := 0
		k.fail = func(string) error {
			if called++; called == n+1 {
				return broken
			}
			return nil
		}
		failures := 0
		for _, do := range []func(){func() {}, func() {}, k.flush, func() { k.set("set directors4", "192.0.2.66") }} {
			do()
			for range 2 {
				if _, err := g.Apply(t.Context(), everything()); err != nil {
					failures++
					if !errors.Is(err, broken) {
						t.Errorf("call %d: error %v", n, err)
					}
				}
			}
			if !k.holds(everything()) {
				t.Errorf("call %d: it does not hold", n)
			}
		}
		if failures != 1 {
			t.Errorf("call %d: %d errors", n, failures)
		}
	}
}

func TestRemove(t *testing.T) {
	k := &fake{}
	g := newGuard(k)
	if _, err := g.Apply(t.Context(), everything()); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		if removed, err := g.Remove(t.Context()); err != nil || removed != want || k.present {
			t.Errorf("Remove %d: %t, %v", i, removed, err)
		}
	}
	k.fail = func(string) error { return errors.New("broken") }
	if _, err := g.Remove(t.Context()); err == nil || err.Error() != "guard: broken" {
		t.Errorf("error %v", err)
	}
}

// TestAnythingGoesBack: whatever was there, one Apply makes it right and the next changes nothing.
func TestAnythingGoesBack(t *testing.T) {
	address := rapid.SampledFrom(addrs("10.0.0.1 10.0.0.2 192.0.2.1 2001:db8::1 2001:db8::2"))
	desired := rapid.Custom(func(t *rapid.T) Desired {
		return Desired{
			Directors: rapid.SliceOfN(address, 1, 4).Draw(t, "directors"),
			VIPs:      rapid.SliceOfN(address, 0, 4).Draw(t, "VIPs"),
			Devices:   rapid.SliceOfN(rapid.SampledFrom(everything().Devices), 0, 3).Draw(t, "devices"),
			GUEPorts:  rapid.SliceOfN(rapid.Uint16Range(1, 9), 0, 2).Draw(t, "ports"),
			MSS4:      rapid.SampledFrom([]int{0, 1340, 1440}).Draw(t, "MSS"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		k := &fake{}
		g := newGuard(k)
		for range rapid.IntRange(1, 10).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"none", "flush", "set", "delete", "other", "restart"}).Draw(t, "damage") {
			case "flush":
				k.flush()
			case "set":
				if k.present {
					k.set(rapid.SampledFrom(slices.Sorted(maps.Keys(k.things))).Draw(t, "thing"), "x")
				}
			case "delete":
				if k.present {
					delete(k.things, rapid.SampledFrom(slices.Sorted(maps.Keys(k.things))).Draw(t, "thing"))
					k.number++
				}
			case "other":
				k.number++
			case "restart":
				g = newGuard(k)
			}
			d := desired.Draw(t, "desired")
			held := k.holds(d)
			report, err := g.Apply(context.Background(), d)
			if err != nil || !k.holds(d) || (len(report.Changes) == 0) != held {
				t.Fatalf("held %t, changes %v, error %v, holds %t", held, texts(report.Changes), err, k.holds(d))
			}
			if again, err := g.Apply(context.Background(), d); err != nil || len(again.Changes) != 0 {
				t.Fatalf("a second Apply: %v, %v", texts(again.Changes), err)
			}
		}
	})
}

func TestTheCallersListsStayItsOwn(t *testing.T) {
	k := &fake{}
	g := newGuard(k)
	d := everything()
	if _, err := g.Apply(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(){
		"director": func() { d.Directors[0] = netip.MustParseAddr("192.0.2.1") },
		"VIP":      func() { d.VIPs[1] = netip.MustParseAddr("192.0.2.51") },
		"protocol": func() { d.Devices[0].Protocols[0] = IPv6InIP },
		"device":   func() { d.Devices[2].Name = "gre1" },
		"GUE port": func() { d.GUEPorts[0] = 6081 },
		"service":  func() { d.Services[0].Port = 81 },
	} {
		change()
		if report, err := g.Apply(t.Context(), d); err != nil || len(report.Changes) != 1 || !k.holds(d) {
			t.Errorf("%s: changes %v, error %v", what, texts(report.Changes), err)
		}
	}
}
