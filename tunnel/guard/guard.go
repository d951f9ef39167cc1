// Package guard keeps an nftables table on a real server that lets a tunnel carry only what the directors
// send to the VIPs. Without it a tunnel device takes packets from anyone to anywhere (CVE-2020-10136).
//
// A packet in a tunnel comes by twice: encapsulated on the device of the LAN, from a director to the real
// server, and again decapsulated, on the tunnel's device, from a client to a VIP. Each time it is looked
// at; what is refused is counted and dropped. The table also lowers the MSS that answers from a VIP
// advertise, so that what clients send still fits when it is encapsulated.
//
// In nftables a drop is final, and an accept only ends the chain that said it. So the table holds whatever
// firewalld, iptables-nft or a person has in theirs, and opens nothing that theirs close; it has no word
// on connection tracking, and needs none. It stays when the program ends.
package guard

import (
	"context"
	"errors"
	"fmt"
	"reflect"
)

// Count is what a counter of the kernel holds.
type Count struct{ Packets, Bytes uint64 }

// Counter is one of the table's.
type Counter struct {
	Name    string
	Refused bool // what it counts was dropped
	Count
}

// The names of the counters.
const (
	Decapsulated     = "decapsulated"       // all that came out of a tunnel
	NotFromDirectors = "not_from_directors" // encapsulated by somebody else: spoofing, or a director nobody told of
	NotToVIPs        = "not_to_vips"        // out of a tunnel to another address
	NotToServices    = "not_to_services"    // out of a tunnel to a VIP, but to none of its services
	GUEWithoutIP     = "gue_without_ip"     // GUE with something else than IP in it
	MSSLowered       = "mss_lowered"        // answers that advertised too large an MSS
)

// counters are those of the table, in this order.
var counters = []Counter{
	{Name: Decapsulated},
	{Name: NotFromDirectors, Refused: true},
	{Name: NotToVIPs, Refused: true},
	{Name: NotToServices, Refused: true},
	{Name: GUEWithoutIP, Refused: true},
	{Name: MSSLowered},
}

// Change is one thing that Apply changed.
type Change struct {
	What     string // "nftables set directors4"
	Old, New string // "10.0.0.1", "10.0.0.1, 10.0.0.2"; "missing", "present"
}

// Report is how the guard stands after an Apply.
type Report struct {
	Changes  []Change
	Counters []Counter // all of them, in one order
}

// Refused is how many packets were dropped.
func (r Report) Refused() uint64 {
	var n uint64
	for _, c := range r.Counters {
		if c.Refused {
			n += c.Packets
		}
	}
	return n
}

// kernel is what a Guard needs of nf_tables.
type kernel interface {
	// generation is another number after every change of the rules, anyone's.
	generation(ctx context.Context) (uint32, error)
	// read returns the table of ours.
	read(ctx context.Context) (state, error)
	// counts are those of the table of ours.
	counts(ctx context.Context) (map[string]Count, error)
	// replace puts t in the place of have, in one transaction. Counters that have holds go on; others begin
	// at counts.
	replace(ctx context.Context, have state, t table, counts map[string]Count) error
	// remove deletes the table of ours, if it is there.
	remove(ctx context.Context) (removed bool, err error)
}

// Guard applies a desired state to the calling process's network namespace. It is not for concurrent use.
type Guard struct {
	kernel kernel
	last   map[string]Count // what the counters held when they were last seen

	desired Desired // that was applied last, normal,
	held    table   // as a table; which the kernel was seen to hold
	proven  bool    // if this is set,
	at      uint32  // in this generation
}

// New returns a Guard on the kernel.
func New() *Guard { return newGuard(nftKernel{}) }

func newGuard(k kernel) *Guard { return &Guard{kernel: k, last: map[string]Count{}} }

// Apply makes the table what desired says, and changes nothing where it is. It is replaced as a whole, in
// one transaction: every packet meets the old rules or the new ones. The counters go on; after somebody's
// `flush ruleset` from where this Guard saw them last. If desired is not valid or anything fails, nothing
// is changed: the error says all that is wrong, or what the kernel lacks.
func (g *Guard) Apply(ctx context.Context, desired Desired) (Report, error) {
	desired, err := desired.normal()
	if err != nil {
		return g.report(nil), fmt.Errorf("guard: %w", err)
	}
	want := g.held
	if !reflect.DeepEqual(desired, g.desired) {
		want, g.proven = build(desired), false
	}
	changes, err := g.bring(ctx, want)
	if err != nil {
		return g.report(nil), fmt.Errorf("guard: %w", err)
	}
	g.desired, g.held = desired, want
	return g.report(changes), nil
}

func (g *Guard) bring(ctx context.Context, want table) ([]Change, error) {
	now, err := g.kernel.generation(ctx)
	if err != nil {
		return nil, err
	}
	if g.proven && now == g.at {
		counts, err := g.kernel.counts(ctx)
		if err != nil {
			return nil, err
		}
		g.see(counts)
		return nil, nil
	}
	g.proven = false
	for range rounds {
		var have state
		if have, now, err = g.snapshot(ctx, now); err != nil {
			return nil, err
		}
		g.see(have.counts)
		changes := diff(have, want, g.held)
		if len(changes) == 0 {
			g.proven, g.at = true, now
			return nil, nil
		}
		failed := g.kernel.replace(ctx, have, want, g.last)
		if failed == nil {
			return changes, nil // proven by the next look
		}
		before := now
		if now, err = g.kernel.generation(ctx); err != nil || now == before {
			return nil, failed
		}
	}
	return nil, errBusy
}

// rounds are how often something is tried again because somebody changed rules meanwhile.
const rounds = 20

var errBusy = errors.New("the rules of nftables change faster than they can be read")

// snapshot reads the table in one piece: again, while somebody changes rules meanwhile.
func (g *Guard) snapshot(ctx context.Context, before uint32) (state, uint32, error) {
	for range rounds {
		have, err := g.kernel.read(ctx)
		after, genErr := g.kernel.generation(ctx)
		if genErr != nil {
			return state{}, 0, errors.Join(err, genErr)
		}
		if after == before {
			return have, after, err
		}
		before = after
	}
	return state{}, 0, errBusy
}

// see remembers what the kernel counted.
func (g *Guard) see(counts map[string]Count) {
	for _, c := range counters {
		if n, found := counts[c.Name]; found {
			g.last[c.Name] = n
		}
	}
}

func (g *Guard) report(changes []Change) Report {
	r := Report{Changes: changes}
	for _, c := range counters {
		c.Count = g.last[c.Name]
		r.Counters = append(r.Counters, c)
	}
	return r
}

// Remove deletes the table; it is no error if there is none. It says whether there was one.
func (g *Guard) Remove(ctx context.Context) (removed bool, err error) {
	g.proven = false
	removed, err = g.kernel.remove(ctx)
	if err != nil {
		return removed, fmt.Errorf("guard: %w", err)
	}
	return removed, nil
}
