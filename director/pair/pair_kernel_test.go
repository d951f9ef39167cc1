//go:build kernel

package pair

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// slack is what a slow machine may take longer than the protocol.
const slack = 500 * ms

// startBoth starts the two directors at once and returns the active one.
func (c *cluster) startBoth(t *testing.T) (active int) {
	t.Helper()
	for _, m := range c.machines {
		m.start(t)
	}
	active = c.holder(t, 3*time.Second)
	time.Sleep(time.Second) // they know each other, nothing moves
	c.only(t, active, 0)
	return active
}

func TestSimultaneousStart(t *testing.T) {
	c := newCluster(t)
	began := time.Now()
	for _, m := range c.machines {
		m.start(t)
	}
	active := c.holder(t, 3*time.Second)
	t.Logf("%s holds the VIP %v after both were started", c.machines[active].name, time.Since(began).Round(ms))
	time.Sleep(3 * time.Second)
	c.only(t, active, 0)
	c.report(t, "simultaneous start", time.Hour, 0)
}

func TestHostDies(t *testing.T) {
	c := newCluster(t)
	active := c.startBoth(t)
	dying, other := c.machines[active], 1-active
	began := time.Now()
	must(t, c.bridge.LinkSetNoMaster(dying.port))
	dying.kill()
	for !c.holds1(other) {
		if time.Since(began) > 3*time.Second {
			t.Fatal("nobody took over")
		}
		time.Sleep(ms)
	}
	took := time.Since(began)
	t.Logf("host death: taken over after %v", took.Round(ms))
	if took > 500*ms+slack {
		t.Errorf("taken over after %v", took)
	}
	// It boots: no failback.
	time.Sleep(3 * time.Second) // its VIP's lease, which nobody sees, ends
	must(t, c.bridge.LinkSetMaster(dying.port, c.br))
	c.reset()
	dying.start(t)
	time.Sleep(2 * time.Second)
	c.only(t, other, 0)
	c.report(t, "the dead host boots", 0, 0)
}

func (c *cluster) holds1(i int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holds[i]
}

func TestDaemonKilled(t *testing.T) {
	c := newCluster(t)
	active := c.startBoth(t)
	c.reset()
	began := time.Now()
	c.machines[active].kill()
	c.only(t, 1-active, 5*time.Second)
	t.Logf("daemon killed: taken over after %v, the kernel held the VIP until then", time.Since(began).Round(ms))
	c.report(t, "daemon killed", 200*ms+slack, 0)
}

func TestDaemonFrozen(t *testing.T) {
	c := newCluster(t)
	active := c.startBoth(t)
	c.reset()
	began := time.Now()
	c.machines[active].signal(t, unix.SIGSTOP)
	c.only(t, 1-active, 5*time.Second)
	t.Logf("daemon frozen: taken over after %v, the kernel held the VIP until then", time.Since(began).Round(ms))
	time.Sleep(time.Second)
	c.machines[active].signal(t, unix.SIGCONT)
	time.Sleep(2 * time.Second)
	c.only(t, 1-active, 0)
	c.report(t, "daemon frozen and thawed", 200*ms+slack, 0)
}

func TestRestartWithinLease(t *testing.T) {
	c := newCluster(t)
	active := c.startBoth(t)
	c.reset()
	c.machines[active].kill()
	time.Sleep(700 * ms)
	c.machines[active].start(t)
	time.Sleep(3 * time.Second)
	c.only(t, active, 0)
	c.report(t, "kill -9 and restart within the lease", 0, 0)
}

func TestStop(t *testing.T) {
	c := newCluster(t)
	active := c.startBoth(t)
	c.reset()
	c.machines[active].stop(t)
	c.only(t, 1-active, time.Second)
	c.report(t, "clean stop", 100*ms, 0)
	c.reset()
	c.machines[active].start(t)
	time.Sleep(time.Second)
	c.only(t, 1-active, 0)
	c.report(t, "started again", 0, 0)
}

func TestPartitionAndHeal(t *testing.T) {
	c := newCluster(t)
	active := c.startBoth(t)
	other := c.machines[1-active]
	must(t, c.bridge.LinkSetNoMaster(other.port))
	time.Sleep(2 * time.Second)
	if !c.holds1(0) || !c.holds1(1) {
		t.Error("each side of a partition should serve its side")
	}
	must(t, c.bridge.LinkSetMaster(other.port, c.br))
	c.reset()
	c.holder(t, time.Second)
	c.report(t, "partition healed", 0, 250*ms+slack)
	time.Sleep(2 * time.Second)
	c.only(t, c.holder(t, 10*ms), 0)
	c.report(t, "and after", 0, 250*ms+slack)
}

func TestCableOut(t *testing.T) {
	c := newCluster(t)
	active := c.startBoth(t)
	c.reset()
	must(t, c.bridge.LinkSetDown(c.machines[active].port))
	c.only(t, 1-active, 2*time.Second)
	must(t, c.bridge.LinkSetUp(c.machines[active].port))
	time.Sleep(2 * time.Second)
	c.only(t, 1-active, 0)
	c.report(t, "cable out and in", 500*ms+slack, 0)
}
