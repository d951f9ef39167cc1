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
)

// mutant is a broken rule. It sees what every step did and may do otherwise.
type mutant struct {
	name       string
	step       func(before Machine, ev Event, now time.Duration, next Machine, actions []Action) (Machine, []Action)
	renewsLate bool // the keeper renews a lease that has ended
}

// simulate runs the scenario of one seed and returns what was wrong with it.
func simulate(seed uint64, m mutant, tracing bool) (violation string, trace []string, steps int) {
	s := newSim(seed, m)
	s.tracing = tracing
	end := s.script() + simLease + simDead + 2*time.Second
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
	if *simSeed != 0 {
		violation, trace, _ := simulate(*simSeed, mutant{}, true)
		t.Logf("seed %d:\n%s", *simSeed, strings.Join(trace, "\n"))
		if violation != "" {
			t.Error(violation)
		}
		return
	}
	count, began := scenarios(), time.Now()
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
				violation, _, steps := simulate(uint64(seed), mutant{}, false)
				mu.Lock()
				total += steps
				if violation != "" {
					if bad++; bad <= 5 {
						t.Errorf("%s\n\treplay: go test -run TestSimulation ./director/election -sim.seed %d -v", violation, seed)
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d scenarios, %d events, %d bad, %v", count, total, bad, time.Since(began).Round(time.Millisecond))
}
