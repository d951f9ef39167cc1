//go:build kernel

package pair

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// sighup lets both directors take up settings, the active one last.
func (c *cluster) sighup(t *testing.T, active int, s settings) {
	t.Helper()
	c.machines[1-active].set(t, s)
	time.Sleep(300 * ms)
	c.machines[active].set(t, s)
}

func TestReloadOnAKernel(t *testing.T) {
	c := newCluster(t)
	active := c.startBoth(t)
	a, b := c.machines[active], c.machines[1-active]
	c.reset()
	added := netip.MustParseAddr("10.0.0.51")
	added6 := netip.MustParseAddr("2001:db8::51")
	all := []netip.Addr{theIP, theIPv6, added, added6}
	c.sighup(t, active, settings{VIPs: all})
	began := time.Now()
	for !a.has(t, added) || !a.has(t, added6) {
		if time.Since(began) > time.Second+slack {
			t.Fatal("the VIPs that were added are not there")
		}
		time.Sleep(ms)
	}
	t.Logf("added VIPs are up %v after the signal", time.Since(began).Round(ms))
	time.Sleep(3 * time.Second)
	for _, addr := range all {
		if !a.has(t, addr) || b.has(t, addr) {
			t.Errorf("%s: %s %v, %s %v", addr, a.name, a.has(t, addr), b.name, b.has(t, addr))
		}
	}
	c.sighup(t, active, settings{VIPs: []netip.Addr{theIP, added6}})
	began = time.Now()
	for a.has(t, added) || a.has(t, theIPv6) {
		if time.Since(began) > time.Second+slack {
			t.Fatal("the VIPs that are gone are still there")
		}
		time.Sleep(ms)
	}
	t.Logf("removed VIPs are down %v after the signal", time.Since(began).Round(ms))
	for _, s := range []settings{{Interval: time.Second, Dead: 3 * time.Second}, {Interval: 50 * ms, Dead: 150 * ms}} {
		s.VIPs = []netip.Addr{theIP, added6}
		c.sighup(t, active, s)
		time.Sleep(4 * time.Second)
	}
	c.only(t, active, 0)
	c.report(t, "four reloads", 0, 0)
	// The new timing is in force.
	began = time.Now()
	must(t, c.bridge.LinkSetNoMaster(a.port))
	a.kill()
	for !c.holds1(1 - active) {
		if time.Since(began) > 3*time.Second {
			t.Fatal("nobody took over")
		}
		time.Sleep(ms)
	}
	took := time.Since(began).Round(ms)
	t.Logf("host death at interval 50ms, dead 150ms: taken over after %v", took)
	if took > 250*ms+slack {
		t.Errorf("taken over after %v", took)
	}
}

// TestTuned measures a host's death at the fastest sensible timing.
func TestTuned(t *testing.T) {
	c := newCluster(t)
	for _, m := range c.machines {
		m.set(t, settings{VIPs: []netip.Addr{theIP}, Interval: 10 * ms, Dead: 30 * ms})
	}
	active := c.startBoth(t)
	dying := c.machines[active]
	began := time.Now()
	must(t, c.bridge.LinkSetNoMaster(dying.port))
	dying.kill()
	for !c.holds1(1 - active) {
		if time.Since(began) > 3*time.Second {
			t.Fatal("nobody took over")
		}
		time.Sleep(ms)
	}
	took := time.Since(began).Round(ms)
	t.Logf("host death at interval 10ms, dead 30ms: taken over after %v", took)
	if took > 60*ms+slack {
		t.Errorf("taken over after %v", took)
	}
}

// TestIPv6Path holds a pair together by an IPv6 path alone.
func TestIPv6Path(t *testing.T) {
	c := newCluster(t)
	c.address(t, "eth0", [2]string{"fd00::1", "fd00::2"}, 64)
	active := c.startBoth(t)
	c.reset()
	c.machines[active].stop(t)
	c.only(t, 1-active, time.Second)
	c.report(t, "clean stop", 100*ms, 0)
	c.machines[active].start(t)
	time.Sleep(time.Second)
	began := time.Now()
	must(t, c.bridge.LinkSetNoMaster(c.machines[1-active].port))
	c.machines[1-active].kill()
	for !c.holds1(active) {
		if time.Since(began) > 3*time.Second {
			t.Fatal("nobody took over")
		}
		time.Sleep(ms)
	}
	t.Logf("host death: taken over after %v", time.Since(began).Round(ms))
}

// TestLANHealsBeforeHeartbeat holds that two directors that both claimed find
// each other on the LAN when their heartbeat stays cut.
func TestLANHealsBeforeHeartbeat(t *testing.T) {
	c := newCluster(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "hb0"
	must(t, c.machines[0].nl.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: "hb0", PeerNamespace: netlink.NsFd(c.machines[1].ns),
	}))
	var wires [2]netlink.Link
	for i, m := range c.machines {
		var err error
		wires[i], err = m.nl.LinkByName("hb0")
		must(t, err)
		must(t, m.nl.LinkSetUp(wires[i]))
	}
	c.address(t, "hb0", [2]string{"192.168.7.1", "192.168.7.2"}, 24)
	active := c.startBoth(t)
	other := c.machines[1-active]
	must(t, c.bridge.LinkSetNoMaster(other.port))
	must(t, c.machines[0].nl.LinkSetDown(wires[0]))
	time.Sleep(2 * time.Second)
	if !c.holds1(0) || !c.holds1(1) {
		t.Error("each side of a partition should serve its side")
	}
	must(t, c.bridge.LinkSetMaster(other.port, c.br))
	c.reset()
	began := time.Now()
	winner := c.holder(t, 3*time.Second)
	t.Logf("the LAN healed and the heartbeat did not: one holder after %v", time.Since(began).Round(ms))
	time.Sleep(3 * time.Second)
	c.only(t, winner, 0)
	c.report(t, "LAN healed", 0, time.Second+slack)
	must(t, c.machines[0].nl.LinkSetUp(wires[0]))
	time.Sleep(2 * time.Second)
	c.only(t, winner, 0)
	c.report(t, "heartbeat healed", 0, time.Second+slack)
}
