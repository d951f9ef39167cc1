package tunnel

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Whatever somebody else breaks is put right by the next Apply, said to be a repair, and counted; what is asked for
// newly is none.
func TestDriftIsRepairedAndCounted(t *testing.T) {
	t.Parallel()
	const all = "10.0.0.50 10.0.0.50/6 2001:db8::50/gue:6080 10.0.0.50/gre"
	for _, tt := range []struct {
		name    string
		breakIt func(*fake)
		want    []Change
	}{
		{"tunl0 down", func(f *fake) { f.setUp(f.links["tunl0"].link, false) }, []Change{{"tunl0", "down", "up", true}}},
		{"sit0 down, and its addresses with it", func(f *fake) { f.setUp(f.links["sit0"].link, false) }, []Change{
			{"sit0", "down", "up", true}, {"2001:db8::50/128 on sit0", "absent", "present", true},
		}},
		{"addresses wiped", func(f *fake) { f.links["tunl0"].addresses, f.links["gre0"].addresses = nil, nil }, []Change{
			{"10.0.0.50/32 on gre0", "absent", "present", true}, {"10.0.0.50/32 on tunl0", "absent", "present", true},
		}},
		{"mode", func(f *fake) { f.setProtocol(f.links["ip6tnl0"].link, 41) }, []Change{{"mode of ip6tnl0", "ip6ip6", "any", true}}},
		{"MTU", func(f *fake) { f.setMTU(f.links["sit0"].link, 1000) }, []Change{
			{"MTU of sit0", "1000", "MTU", true}, {"2001:db8::50/128 on sit0", "absent", "present", true},
		}},
		{"port closed", func(f *fake) { clear(f.fou) }, []Change{{"UDP port 6080 of IPv4 for GUE", "closed", "open", true}}},
		{"device gone", func(f *fake) { delete(f.links, "tunl0") }, []Change{
			{"tunl0", "missing", "present", true}, {"tunl0", "down", "up", true}, {"10.0.0.50/32 on tunl0", "absent", "present", true},
		}},
		{"another one came instead", func(f *fake) { f.have("tunl0", "ipip", false) }, []Change{
			{"tunl0", "down", "up", true}, {"10.0.0.50/32 on tunl0", "absent", "present", true},
		}},
		{"a foreign address", func(f *fake) {
			f.addAddress(f.links["tunl0"].link, netip.MustParsePrefix("10.9.9.9/32"))
			f.others("tunl0")
		}, nil},
		{"a larger MTU", func(f *fake) { f.setMTU(f.links["tunl0"].link, 9000) }, nil},
	} {
		for _, fallbacks := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, fallbacks=%v", tt.name, fallbacks), func(t *testing.T) {
				t.Parallel()
				host := newFake()
				host.fallbacks = fallbacks
				tunnel := newTunnel(host, host)
				report, err := tunnel.Apply(t.Context(), desired(all))
				must(t, err)
				if report.Repairs != 0 || strings.Contains(fmt.Sprintf("%+v", report.Changes), "Drift:true") {
					t.Errorf("built: %+v", report)
				}
				tt.breakIt(host)
				report, err = tunnel.Apply(t.Context(), desired(all))
				must(t, err)
				for i, c := range report.Changes {
					if want := map[bool]string{true: "1480", false: "1280"}[fallbacks]; c.What == "MTU of sit0" && c.New == want {
						report.Changes[i].New = "MTU" // that it came with; for one that we made the least
					}
				}
				if diff := cmp.Diff(tt.want, report.Changes); diff != "" {
					t.Errorf("changes (-want +got):\n%s", diff)
				}
				if report.Repairs != uint64(len(tt.want)) || len(report.Held) != 4 {
					t.Errorf("%d repairs, held %v", report.Repairs, report.Held)
				}
				report, err = tunnel.Apply(t.Context(), desired(all+" 10.0.0.51"))
				if err != nil || len(report.Changes) != 1 || report.Changes[0].Drift || report.Repairs != uint64(len(tt.want)) {
					t.Errorf("another VIP: %v, %+v", err, report)
				}
			})
		}
	}
}

// Where another tool fights back, it is five repairs at once and then one a minute, with one and the same alarm for as
// long as it goes on; what nobody touches is not affected.
func TestFights(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		host := newFake()
		tunnel := newTunnel(host, host)
		apply := func() Report {
			report, err := tunnel.Apply(t.Context(), desired("10.0.0.50 10.0.0.51"))
			must(t, err)
			return report
		}
		vip := netip.MustParsePrefix("10.0.0.50/32")
		apply()
		const alarm = "10.0.0.50/32 on tunl0: something else on this host keeps changing it (to absent): " +
			"after 5 repairs within a minute it is put right once a minute; find what does it"
		begin := time.Now()
		var repairs []string
		alarms := map[string]int{}
		for range 1800 { // three minutes, ten looks a second
			host.removeAddress(host.links["tunl0"].link, vip)
			report := apply()
			for _, c := range report.Changes {
				if c.What != vip.String()+" on tunl0" || !c.Drift {
					t.Errorf("%+v", c)
				}
				repairs = append(repairs, time.Since(begin).String())
			}
			for _, a := range report.Alarms {
				alarms[a]++
			}
			if want := 2 - boolInt(len(report.Changes) == 0); len(report.Held) != want {
				t.Errorf("held %v after %v", report.Held, report.Changes)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if diff := cmp.Diff([]string{"0s", "100ms", "200ms", "300ms", "400ms", "1m0.4s", "2m0.4s"}, repairs); diff != "" {
			t.Errorf("repairs at (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[string]int{alarm: 1796}, alarms); diff != "" {
			t.Errorf("alarms (-want +got):\n%s", diff)
		}

		// The other tool gives up: after a minute the alarm ends, and a drift is put right at once again.
		time.Sleep(time.Minute)
		if report := apply(); len(report.Changes) != 1 || len(report.Alarms) != 1 {
			t.Errorf("the last repair: %+v", report)
		}
		time.Sleep(59 * time.Second)
		if report := apply(); len(report.Alarms) != 1 {
			t.Errorf("after 59 s: %+v", report)
		}
		time.Sleep(time.Second)
		if report := apply(); len(report.Alarms) != 0 {
			t.Errorf("after a minute: %+v", report)
		}
		host.removeAddress(host.links["tunl0"].link, vip)
		if report := apply(); len(report.Changes) != 1 || len(report.Alarms) != 0 {
			t.Errorf("later: %+v", report)
		}
	})
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A device that is down again at every look is one bout a look, though it also takes its addresses with it; drifts that
// come now and then are no fight; and what is not wanted any more is none.
func TestWhatIsAFight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		host := newFake()
		host.fallbacks = false
		tunnel := newTunnel(host, host)
		apply := func(what string) Report {
			report, err := tunnel.Apply(t.Context(), desired(what))
			must(t, err)
			return report
		}
		apply("2001:db8::50")
		for n := range 100 {
			host.setUp(host.links["sit0"].link, false)
			if report := apply("2001:db8::50"); len(report.Held) != 1 || len(report.Alarms) != 0 {
				t.Fatalf("drift %d, one in 15 s: %+v", n, report)
			}
			time.Sleep(15 * time.Second)
		}
		time.Sleep(time.Minute)
		for n := 1; n <= bouts; n++ {
			clear(host.links)
			if report := apply("2001:db8::50"); len(report.Held) != 1 || (len(report.Alarms) > 0) != (n == bouts) {
				t.Errorf("bout %d: %+v", n, report)
			}
		}
		if report := apply(""); len(report.Alarms) != 0 || host.String() != "" {
			t.Errorf("not wanted any more: %+v, host:\n%s", report, host)
		}
	})
}

// What is broken and, for a fight, not put right now is not held.
func TestWhatIsBrokenIsNotHeld(t *testing.T) {
	t.Parallel()
	for name, breakIt := range map[string]func(*fake){
		"down":    func(f *fake) { f.setUp(f.links["ip6tnl0"].link, false) },
		"mode":    func(f *fake) { f.setProtocol(f.links["ip6tnl0"].link, 41) },
		"address": func(f *fake) { f.links["ip6tnl0"].addresses = nil },
		"port":    func(f *fake) { clear(f.fou) },
		"gone":    func(f *fake) { clear(f.links) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				host := newFake()
				tunnel := newTunnel(host, host)
				for n := range bouts + 2 {
					report, err := tunnel.Apply(t.Context(), desired("10.0.0.50/6/gue:6080"))
					must(t, err)
					if want := n <= bouts; (len(report.Held) == 1) != want || (len(report.Alarms) == 0) != (n < bouts) {
						t.Errorf("bout %d: %+v", n, report)
					}
					breakIt(host)
				}
			})
		})
	}
}
