package election

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "replay the one scenario of this seed and print what happened")
	simCount = flag.Int("sim.count", 0, "how many scenarios to simulate (default 100000)")
	simUse   = flag.String("sim.timing", "defaults", "the timing to replay with")
)

// timings are what is simulated, and how often for a scenario at defaults.
var timings = []struct {
	name   string
	cfg    Config
	oneFor int
}{
	{"defaults", simDefaults, 1},
	{"tuned", simTuned, 20},
	{"lvs.cf", simLvsCf, 20},
}

// mutant is a broken rule. It sees what every step did and may do otherwise.
type mutant struct {
	name       string
	step       func(before Machine, ev Event, now time.Duration, next Machine, actions []Action) (Machine, []Action)
	renewsLate bool // the keeper renews a lease that has ended
}

// simulate runs the scenario of one seed and returns what was wrong with it.
func simulate(seed uint64, timing Config, m mutant, tracing bool) (violation string, trace []string, steps int) {
	s := newSim(seed, timing, m)
	s.tracing = tracing
	end := s.script() + s.Lease + 2*s.Dead + 4*time.Second
	s.run(end)
	s.check.settled()
	return s.check.violation, s.trace, s.steps
}

func scenarios() int {
	if *simCount > 0 {
		return *simCount
	}
	if n, err := strconv.Atoi(os.Getenv("LVSTUN_SCENARIOS")); err == nil {
		return n
	}
	if raceEnabled || testing.Short() {
		return 2_000
	}
	return 100_000
}

func TestSimulation(t *testing.T) {
	for _, timing := range timings {
		t.Run(timing.name, func(t *testing.T) {
			if *simSeed == 0 {
				run(t, timing.name, timing.cfg, max(scenarios()/timing.oneFor, 100))
				return
			}
			if timing.name != *simUse {
				t.Skip("another timing is replayed")
			}
			violation, trace, _ := simulate(*simSeed, timing.cfg, mutant{}, true)
			t.Logf("seed %d:\n%s", *simSeed, strings.Join(trace, "\n"))
			if violation != "" {
				t.Error(violation)
			}
		})
	}
}

// run simulates count scenarios.
func run(t *testing.T, name string, timing Config, count int) {
	began := time.Now()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards bad and steps
		bad   int
		total int
	)
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for seed := 1 + w; seed <= count; seed += workers {
				violation, _, steps := simulate(uint64(seed), timing, mutant{}, false)
				mu.Lock()
				total += steps
				if violation != "" {
					if bad++; bad <= 5 {
						t.Errorf("%s\n\treplay: go test -run TestSimulation ./director/election -sim.timing %s -sim.seed %d -v", violation, name, seed)
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d scenarios, %d events, %d bad, %v", count, total, bad, time.Since(began).Round(time.Millisecond))
}
