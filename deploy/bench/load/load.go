package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Config says what the client does.
type Config struct {
	Addr     netip.AddrPort
	Every    time.Duration // between new connections
	Timeout  time.Duration // of a request on a new connection: less than the 1 s after which a SYN is sent again
	Flows    int           // long ones
	Beat     time.Duration // between the requests of a flow
	Calm     time.Duration // how long all must go well before Run is ready, and before it ends
	Patience time.Duration // how long it waits for that
	Limit    time.Duration // Run ends after this at the latest, and its patience
}

// Defaults are a Config without its address.
var Defaults = Config{
	Every: 10 * time.Millisecond, Timeout: 500 * time.Millisecond, Flows: 20, Beat: 100 * time.Millisecond,
	Calm: time.Second, Patience: 15 * time.Second, Limit: time.Minute,
}

// look is how often Run looks whether all is calm.
const look = 20 * time.Millisecond

// Run asks until ctx ends. It calls ready once all goes well and counts from then on; after ctx has ended it goes on
// until all goes well again, or is given up. It fails where it never goes well at first.
func Run(ctx context.Context, cfg Config, ready func()) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.Limit)
	defer cancel()
	t := newTally(cfg.Flows)
	working, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() { requests(working, cfg, t, &work) })
	for i := range cfg.Flows {
		work.Go(func() { keepFlow(working, cfg, t, i) })
	}
	if !becomesCalm(ctx, cfg, t) {
		return Result{}, fmt.Errorf("%s does not answer well for %s: %v", cfg.Addr, cfg.Calm, t.end(time.Now(), 0).Causes)
	}
	t.begin(time.Now())
	ready()
	<-ctx.Done()
	time.Sleep(cfg.Timeout)                   // requests that wait for an answer now may fail yet
	becomesCalm(context.Background(), cfg, t) // where it does not, the result says so
	return t.end(time.Now(), cfg.Calm/2), nil
}

// becomesCalm waits for calm and says whether it came.
func becomesCalm(ctx context.Context, cfg Config, t *tally) bool {
	ctx, cancel := context.WithTimeout(ctx, cfg.Patience)
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for !t.calm(time.Now(), cfg.Calm) {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// requests asks on a new connection every interval, whatever became of the requests before.
func requests(ctx context.Context, cfg Config, t *tally, work *sync.WaitGroup) {
	tick := time.NewTicker(cfg.Every)
	defer tick.Stop()
	for ctx.Err() == nil {
		t.sending(time.Now())
		work.Go(func() {
			err := request(cfg)
			if ctx.Err() == nil {
				t.request(time.Now(), err)
			}
		})
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func request(cfg Config) error {
	deadline := time.Now().Add(cfg.Timeout)
	conn, err := (&net.Dialer{Deadline: deadline, KeepAlive: -1}).Dial("tcp", cfg.Addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	return ask(conn, bufio.NewReaderSize(conn, 256), "Connection: close\r\n")
}

// keepFlow asks on one connection every beat, one request at a time, until it breaks or ctx ends.
func keepFlow(ctx context.Context, cfg Config, t *tally, i int) {
	for ctx.Err() == nil {
		if err := runFlow(ctx, cfg, t, i); err != nil && ctx.Err() == nil && !t.broke(i) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(cfg.Beat):
		}
	}
}

func runFlow(ctx context.Context, cfg Config, t *tally, i int) error {
	conn, err := (&net.Dialer{Timeout: cfg.Timeout, KeepAlive: -1}).Dial("tcp", cfg.Addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()
	t.connected(i, time.Now())
	in := bufio.NewReaderSize(conn, 256)
	tick := time.NewTicker(cfg.Beat)
	defer tick.Stop()
	for {
		t.asked(i, time.Now())
		if err := ask(conn, in, ""); err != nil {
			return err
		}
		t.answered(i, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ask makes one request and reads its answer: a head and a page of one line.
func ask(out io.Writer, in *bufio.Reader, headers string) error {
	if _, err := io.WriteString(out, "GET / HTTP/1.1\r\nHost: bench\r\n"+headers+"\r\n"); err != nil {
		return err
	}
	status, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200 ") {
		return fmt.Errorf("status %q", strings.TrimSpace(status))
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if line == "\r\n" {
			break
		}
	}
	_, err = in.ReadString('\n')
	return err
}
